"""What is kept of a checked file between runs: its findings and what it says of classes, as plain JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dropkit.check.relations import Account
from dropkit.facts.finding import Edit, Finding, Fix, Question, Severity, Span


@dataclass(frozen=True, slots=True)
class Record:
    """The result of one file. `account` is None where the file holds nothing that rules look at."""

    findings: tuple[Finding, ...] = ()
    note: str | None = None
    account: Account | None = None


def dump(record: Record) -> list[Any]:
    """A record as JSON values, without the path, which is its key."""
    told = record.account
    return [
        [_finding(finding) for finding in record.findings],
        record.note,
        None if told is None else [told.bases, told.reads, told.held, told.loose, told.imports],
    ]


def load(path: str, values: list[Any]) -> Record:
    """A record from what `dump` made."""
    findings, note, told = values
    return Record(tuple(_loaded(path, one) for one in findings), note, None if told is None else Account(*told))


class Cache:
    """Records by path and content, in one file of a folder of its own; a file that cannot be read is an empty cache."""

    def __init__(self, folder: Path | None, settings: str) -> None:
        self.file = None if folder is None else folder / f"{_digest((settings + _version()).encode())}.json"
        self.kept: dict[str, list[Any]] = {}
        self.changed = False
        if self.file is not None:
            try:
                kept = json.loads(self.file.read_bytes())
                self.kept = kept if isinstance(kept, dict) else {}
            except (OSError, ValueError):
                pass

    def get(self, path: str, data: bytes, what: str = "findings") -> Record | None:
        """The record of a file with this content, if one is kept; `what` was asked of the file."""
        kept = self.kept.get(f"{what} {os.path.abspath(path)}")
        return load(path, kept[1]) if kept is not None and kept[0] == _digest(data) else None

    def put(self, path: str, data: bytes, values: list[Any], what: str = "findings") -> None:
        """Keep a record, given as `dump` made it."""
        if self.file is not None:
            self.kept[f"{what} {os.path.abspath(path)}"] = [_digest(data), values]
            self.changed = True

    def save(self) -> None:
        """Write what is new; where the folder cannot be written nothing is kept."""
        if self.file is None or not self.changed:
            return
        import tempfile  # as above

        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            (self.file.parent / ".gitignore").write_text("*\n")
            # Another run may be reading: the new file takes the place of the old in one step.
            handle, name = tempfile.mkstemp(dir=self.file.parent)
            with os.fdopen(handle, "w") as file:
                file.write(json.dumps(self.kept, separators=(",", ":")))
            os.replace(name, self.file)
        except OSError:
            pass


@cache
def _version() -> str:
    """Changes with any file of the checker."""
    package = Path(__file__).parent.parent
    files = [
        package / "catalog.py",
        *(f for name in ("facts", "rules", "check") for f in (package / name).glob("*.py")),
    ]
    return _digest(b"".join(file.read_bytes() for file in sorted(files)))


def _digest(data: bytes) -> str:
    import hashlib  # a run on one file that keeps nothing does without

    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _finding(one: Finding) -> list[Any]:
    fix = None
    if one.fix is not None:
        edits = [[edit.start, edit.end, edit.text] for edit in one.fix.edits]
        fix = [one.fix.title, edits, one.fix.safe, one.fix.changes_training]
    unless = None if one.unless is None else list(asdict(one.unless).values())
    return [one.code, one.message, one.severity.value, list(asdict(one.span).values()), fix, unless, one.cell]


def _loaded(path: str, values: list[Any]) -> Finding:
    code, message, severity, span, fix, unless, cell = values
    if fix is not None:
        title, edits, safe, changes_training = fix
        fix = Fix(title, tuple(Edit(*edit) for edit in edits), safe, changes_training)
    question = None if unless is None else Question(*unless)
    return Finding(code, message, Severity(severity), path, Span(*span), fix, question, cell)
