"""A baseline: the findings that were there when the checker came, so that only new ones are shown.

A finding is known by its file, its code and the text of its line, not by the number: code that moves stays known.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from dropkit import files
from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.config import BadConfig
from dropkit.lint.engine.result import Outcome

_FORMAT = 1
_NAMES = {int: "a whole number", list: "a list", str: "text"}


def write(file: Path, outcome: Outcome, root: Path) -> int:
    """Write every finding of `outcome` to `file`; return how many."""
    counts = Counter(_name(finding, outcome, root) for finding in outcome.findings)
    entries = [{"path": p, "code": c, "line": d, "count": n} for (p, c, d), n in sorted(counts.items())]
    files.write(file, (json.dumps({"format": _FORMAT, "findings": entries}, indent=1) + "\n").encode())
    return len(outcome.findings)


def new(file: Path, outcome: Outcome, root: Path) -> tuple[Diagnostic, ...]:
    """The findings of `outcome` that `file` does not hold; a line found more often than then is new as often.

    Raises:
        BadConfig: the file cannot be read, or is no baseline.
    """
    try:
        known = _known(json.loads(files.read(file)))
    except FileNotFoundError as error:
        raise BadConfig(f"no such baseline: {file}; --write-baseline {file} writes one") from error
    except OSError as error:
        raise BadConfig(f"{file} could not be read: {files.reason(error)}") from error
    except _NoBaseline as error:
        raise BadConfig(f"{file} is not a baseline: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{file} is not a baseline: it is not JSON: {error}") from error
    return _beyond(outcome.findings, known, outcome, root)


class _NoBaseline(ValueError):
    """JSON, but not what `write` writes."""


def _known(document: Any) -> Counter[tuple[str, str, str]]:
    """How often each finding was there."""
    version, findings = _fields(document, "it", format=int, findings=list)
    if version != _FORMAT:
        raise _NoBaseline(f"its format must be {_FORMAT}, got {version}")
    known: Counter[tuple[str, str, str]] = Counter()
    for number, one in enumerate(findings, 1):
        path, code, line, count = _fields(one, f"finding {number}", path=str, code=str, line=str, count=int)
        known[path, code, line] += count
    return known


def _fields(value: Any, what: str, **kinds: type) -> Iterator[Any]:
    """What a JSON object holds by these names, each of its kind."""
    if not isinstance(value, dict):
        raise _NoBaseline(f"{what} must be an object with {', '.join(kinds)}")
    for name, kind in kinds.items():
        held = cast("dict[str, Any]", value).get(name)
        if not isinstance(held, kind):
            raise _NoBaseline(f"{name} of {what} must be {_NAMES[kind]}")
        yield held


def _beyond(
    findings: Sequence[Diagnostic], known: Counter[tuple[str, str, str]], outcome: Outcome, root: Path
) -> tuple[Diagnostic, ...]:
    fresh: list[Diagnostic] = []
    for finding in findings:
        name = _name(finding, outcome, root)
        if known[name] > 0:
            known[name] -= 1
        else:
            fresh.append(finding)
    return tuple(fresh)


def _name(finding: Diagnostic, outcome: Outcome, root: Path) -> tuple[str, str, str]:
    path = Path(os.path.realpath(finding.path))
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    import hashlib  # most runs have no baseline

    line = outcome.texts[finding.path, finding.cell].line(finding.span.line).strip()
    return shown, finding.code, hashlib.blake2b(line.encode(), digest_size=8).hexdigest()
