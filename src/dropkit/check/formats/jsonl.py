"""The format `jsonl`: the objects of `json`, one a line."""

from __future__ import annotations

import json

from dropkit.check.formats.json import records
from dropkit.check.outcome import Outcome


def render(outcome: Outcome, color: bool) -> str:
    """One line for each object; nothing where there is none."""
    return "".join(json.dumps(one) + "\n" for one in records(outcome))
