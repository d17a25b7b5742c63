"""How an outcome is shown: one file a format, loaded when it is used, so that JSON does not pay for colours.

A format is `render(outcome, color)`. What it returns is printed as it is: it ends in a line feed, or is empty.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from dropkit.lint.engine.result import Outcome

Render = Callable[[Outcome, bool], str]


def _format(name: str) -> Render:
    def render(outcome: Outcome, color: bool) -> str:
        return importlib.import_module(f"dropkit.lint.formats.{name}").render(outcome, color)

    return render


# In the order of `--help`; the file of the same name holds `render`.
FORMATS: dict[str, Render] = {name: _format(name) for name in ("full", "concise", "json", "jsonl", "sarif", "github")}
