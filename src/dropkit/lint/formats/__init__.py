"""Output formats: one file each, imported when it is used.

A format is a function `render(result, color)`. Its text ends in a line feed, or is empty.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from dropkit.lint.engine.result import CheckResult

Render = Callable[[CheckResult, bool], str]


def _format(name: str) -> Render:
    def render(result: CheckResult, color: bool) -> str:
        return importlib.import_module(f"dropkit.lint.formats.{name}").render(result, color)

    return render


# In the order of `--help`; each name is a module of this package.
FORMATS: dict[str, Render] = {name: _format(name) for name in ("full", "concise", "json", "jsonl", "sarif", "github")}
