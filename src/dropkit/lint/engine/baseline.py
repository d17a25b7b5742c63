"""Baselines: files of known findings, so that only new ones are reported.

A finding is identified by its file, its code and the text of its line, not by the line number, so that code may move.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from dropkit import files
from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.config import BadConfig
from dropkit.lint.engine.result import CheckResult

_FORMAT = 1
_TYPE_NAMES = {int: "a whole number", list: "a list", str: "text"}
# Path, code and a digest of the line.
_Key = tuple[str, str, str]


def write(file: Path, result: CheckResult, root: Path) -> int:
    """Write all findings of `result` to `file`; return their number."""
    counts = Counter(_key(finding, result, root) for finding in result.findings)
    entries = [{"path": p, "code": c, "line": d, "count": n} for (p, c, d), n in sorted(counts.items())]
    files.write(file, (json.dumps({"format": _FORMAT, "findings": entries}, indent=1) + "\n").encode())
    return len(result.findings)


def new_findings(file: Path, result: CheckResult, root: Path) -> tuple[Diagnostic, ...]:
    """Return the findings of `result` that are not in `file`; of equal ones, as many as exceed the number in `file`.

    Raises:
        BadConfig: the file cannot be read, or is not a baseline.
    """
    try:
        known = _known(json.loads(files.read(file)))
    except FileNotFoundError as error:
        raise BadConfig(f"no such baseline: {file}; --write-baseline {file} writes one") from error
    except OSError as error:
        raise BadConfig(f"{file} could not be read: {files.reason(error)}") from error
    except _NotABaseline as error:
        raise BadConfig(f"{file} is not a baseline: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{file} is not a baseline: it is not JSON: {error}") from error
    new: list[Diagnostic] = []
    for finding in result.findings:
        key = _key(finding, result, root)
        if known[key] > 0:
            known[key] -= 1
        else:
            new.append(finding)
    return tuple(new)


class _NotABaseline(ValueError):
    """The JSON document is not what `write` writes."""


def _known(document: Any) -> Counter[_Key]:
    """The number of times that each finding is in a baseline."""
    version, findings = _fields(document, "it", format=int, findings=list)
    if version != _FORMAT:
        raise _NotABaseline(f"its format must be {_FORMAT}, got {version}")
    known: Counter[_Key] = Counter()
    for number, finding in enumerate(findings, 1):
        path, code, line, count = _fields(finding, f"finding {number}", path=str, code=str, line=str, count=int)
        known[path, code, line] += count
    return known


def _fields(value: Any, description: str, **types: type) -> Iterator[Any]:
    """Yield the values of a JSON object with these names and types."""
    if not isinstance(value, dict):
        raise _NotABaseline(f"{description} must be an object with {', '.join(types)}")
    for name, type_ in types.items():
        field = cast("dict[str, Any]", value).get(name)
        if not isinstance(field, type_):
            raise _NotABaseline(f"{name} of {description} must be {_TYPE_NAMES[type_]}")
        yield field


def _key(finding: Diagnostic, result: CheckResult, root: Path) -> _Key:
    path = Path(os.path.realpath(finding.path))
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    line = result.texts[finding.path, finding.cell].line(finding.span.line).strip()
    return shown, finding.code, hashlib.blake2b(line.encode(), digest_size=8).hexdigest()
