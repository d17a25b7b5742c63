"""A baseline: the findings that were there when the checker came, so that only new ones are shown.

A finding is known by its file, its code and the text of its line, not by the number: code that moves stays known.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropkit import files
from dropkit.check.config import BadConfig
from dropkit.check.outcome import Outcome
from dropkit.facts.finding import Finding

_FORMAT = 1


def write(file: Path, outcome: Outcome, root: Path) -> int:
    """Write every finding of `outcome` to `file`; return how many."""
    counts = Counter(_name(finding, outcome, root) for finding in outcome.findings)
    entries = [{"path": p, "code": c, "line": d, "count": n} for (p, c, d), n in sorted(counts.items())]
    files.write(file, (json.dumps({"format": _FORMAT, "findings": entries}, indent=1) + "\n").encode())
    return len(outcome.findings)


def new(file: Path, outcome: Outcome, root: Path) -> tuple[Finding, ...]:
    """The findings of `outcome` that `file` does not hold; a line found more often than then is new as often.

    Raises:
        BadConfig: the file cannot be read, or is no baseline.
    """
    try:
        document: dict[str, Any] = json.loads(files.read(file))
        if document["format"] != _FORMAT:
            raise ValueError(f"its format must be {_FORMAT}, got {document['format']}")
        known = Counter({(one["path"], one["code"], one["line"]): int(one["count"]) for one in document["findings"]})
    except FileNotFoundError as error:
        raise BadConfig(f"no such baseline: {file}; --write-baseline {file} writes one") from error
    except OSError as error:
        raise BadConfig(f"{file} could not be read: {files.reason(error)}") from error
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        raise BadConfig(f"{file} is not a baseline: {error}") from error
    return _beyond(outcome.findings, known, outcome, root)


def _beyond(
    findings: Sequence[Finding], known: Counter[tuple[str, str, str]], outcome: Outcome, root: Path
) -> tuple[Finding, ...]:
    fresh: list[Finding] = []
    for finding in findings:
        name = _name(finding, outcome, root)
        if known[name] > 0:
            known[name] -= 1
        else:
            fresh.append(finding)
    return tuple(fresh)


def _name(finding: Finding, outcome: Outcome, root: Path) -> tuple[str, str, str]:
    path = Path(os.path.realpath(finding.path))
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    import hashlib  # most runs have no baseline

    line = outcome.texts[finding.path, finding.cell].line(finding.span.line).strip()
    return shown, finding.code, hashlib.blake2b(line.encode(), digest_size=8).hexdigest()
