"""The format `jsonl`: the objects of the format `json`, one on each line."""

from __future__ import annotations

import json

from dropkit.lint.engine.result import CheckResult
from dropkit.lint.formats.json import records


def render(result: CheckResult, color: bool) -> str:
    """One line for each object."""
    return "".join(json.dumps(entry) + "\n" for entry in records(result))
