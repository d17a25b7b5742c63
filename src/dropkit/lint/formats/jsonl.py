"""The format `jsonl`: the objects of `json`, one a line."""

from __future__ import annotations

import json

from dropkit.lint.engine.result import Outcome
from dropkit.lint.formats.json import records


def render(outcome: Outcome, color: bool) -> str:
    """One line for each object; nothing where there is none."""
    return "".join(json.dumps(one) + "\n" for one in records(outcome))
