"""What is kept of a checked file between runs: its findings and what it says of classes, as plain JSON.

What is read back may have been written by anybody: it is taken only where every value is of its kind.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from dropkit import files
from dropkit.diagnostics import CrossFileCondition, Diagnostic, Edit, Fix, Severity, Span
from dropkit.lint.engine.project_index import Account
from dropkit.lint.engine.result import Note
from dropkit.rules import RULES

T = TypeVar("T")
_CODES = frozenset(rule.code for rule in RULES)


@dataclass(frozen=True, slots=True)
class Record:
    """The result of one file. `account` is None where the file holds nothing that rules look at."""

    findings: tuple[Diagnostic, ...] = ()
    notes: tuple[Note, ...] = ()
    account: Account | None = None


def dump(record: Record) -> list[Any]:
    """A record as JSON values, without the path, which is its key."""
    told = record.account
    return [
        [_finding(finding) for finding in record.findings],
        [[note.message, note.cell, note.line] for note in record.notes],
        None if told is None else [told.bases, told.reads, told.held, told.loose, told.imports],
    ]


def load(path: str, values: Any) -> Record:
    """A record from what `dump` made.

    Raises:
        ValueError: it was made by something else.
    """
    findings, notes, told = _items(values, 3)
    return Record(
        tuple(_loaded(path, one) for one in _items(findings)),
        tuple(_loaded_note(path, one) for one in _items(notes)),
        _maybe(_account, told),
    )


def user_folder(root: Path) -> Path | None:
    """Where the results of the project at `root` are kept: below the user's cache folder, where no project writes.

    None where the user has no home, or one that is not absolute: it would lie in whatever folder this is.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    except RuntimeError:
        return None
    if not base.is_absolute():
        return None
    # Links above it are the user's own.
    return Path(os.path.realpath(base)) / "dropkit" / _digest(os.fsencode(os.path.realpath(root)))


class Cache:
    """Records by path and content, in one file of a folder of its own; a file that cannot be read is an empty cache.

    `warning` says why nothing could be kept.
    """

    def __init__(self, folder: Path | None, settings: str) -> None:
        self.file = None if folder is None else folder / f"{_digest((settings + _version()).encode())}.json"
        self.kept: dict[str, Any] = {}
        self.changed = False
        self.warning: str | None = None
        if self.file is None:
            return
        try:
            _must_be_a_folder(self.file.parent)
            kept = json.loads(files.read(self.file, follow=False))
            self.kept = kept if isinstance(kept, dict) else {}
        except FileNotFoundError:
            pass
        except _Refused as error:
            self.warning = f"results are neither kept nor reused: {error}"
            self.file = None
        except (OSError, ValueError, RecursionError):
            pass

    def get(self, path: str, data: bytes, what: str = "findings") -> Record | None:
        """The record of a file with this content, if one is kept; `what` was asked of the file."""
        kept = self.kept.get(f"{what} {os.path.abspath(path)}")
        try:
            digest, values = _items(kept, 2)
            return load(path, values) if digest == _digest(data) else None
        except ValueError:
            return None

    def put(self, path: str, data: bytes, values: list[Any], what: str = "findings") -> None:
        """Keep a record, given as `dump` made it."""
        if self.file is not None:
            self.kept[f"{what} {os.path.abspath(path)}"] = [_digest(data), values]
            self.changed = True

    def save(self) -> None:
        """Write what is new; where the folder cannot be written nothing is kept."""
        if self.file is None or not self.changed:
            return
        folder = self.file.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _must_be_a_folder(folder)
            files.create(folder / ".gitignore", b"*\n")
            # Another run may be reading: the new file takes the place of the old in one step.
            files.write(self.file, json.dumps(self.kept, separators=(",", ":")).encode())
        except (OSError, RecursionError) as error:
            why = files.reason(error) if isinstance(error, OSError) else "what was kept is nested too deeply"
            self.warning = f"results are not kept in {folder}: {why}"


class _Refused(OSError):
    """The cache folder is a link, or lies behind one that leads out of its project."""


def _must_be_a_folder(folder: Path) -> None:
    if files.leads_out(folder / "file") or stat.S_ISLNK(os.lstat(folder).st_mode):
        raise _Refused(f"{folder} is, or lies behind, a symbolic link")


@cache
def _version() -> str:
    """Changes with any file of the checker."""
    package = Path(__file__).parents[2]
    files = [
        *(package / name for name in ("catalog.py", "diagnostics.py", "trace.py")),
        *(file for name in ("lint", "rules") for file in (package / name).rglob("*.py")),
    ]
    return _digest(b"".join(file.read_bytes() for file in sorted(files)))


def _digest(data: bytes) -> str:
    import hashlib  # a run on one file that keeps nothing does without

    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _finding(one: Diagnostic) -> list[Any]:
    fix = None
    if one.fix is not None:
        edits = [[edit.start, edit.end, edit.text] for edit in one.fix.edits]
        fix = [one.fix.title, edits, one.fix.safe, one.fix.changes_training]
    unless = None if one.unless is None else list(asdict(one.unless).values())
    return [one.code, one.message, one.severity.value, list(asdict(one.span).values()), fix, unless, one.cell]


def _loaded(path: str, values: Any) -> Diagnostic:
    code, message, severity, span, fix, unless, cell = _items(values, 7)
    line, column, end_line, end_column = map(_place, _items(span, 4))
    return Diagnostic(
        _code(code),
        _text(message),
        Severity(_text(severity)),
        path,
        Span(line, column, end_line, end_column),
        _maybe(_loaded_fix, fix),
        _maybe(lambda one: CrossFileCondition(*map(_text, _items(one, 2))), unless),
        _maybe(_place, cell),
    )


def _loaded_fix(values: Any) -> Fix:
    title, edits, safe, changes_training = _items(values, 4)
    return Fix(_text(title), tuple(_loaded_edit(one) for one in _items(edits)), _flag(safe), _flag(changes_training))


def _loaded_edit(values: Any) -> Edit:
    start, end, text = _items(values, 3)
    return Edit(_offset(start), _offset(end), _text(text))


def _loaded_note(path: str, values: Any) -> Note:
    message, cell, line = _items(values, 3)
    return Note(path, _text(message), _maybe(_place, cell), _maybe(_place, line))


def _account(values: Any) -> Account:
    bases, reads, *lists = _items(values, 5)
    return Account(_lists(bases), _lists(reads), *(_texts(one) for one in lists))


def _lists(value: Any) -> dict[str, list[str]]:
    return {name: _texts(one) for name, one in cast("dict[str, Any]", _of(dict, value)).items()}


def _texts(value: Any) -> list[str]:
    return [_text(one) for one in _items(value)]


def _items(value: Any, count: int | None = None) -> list[Any]:
    items = cast("list[Any]", _of(list, value))
    if count not in (None, len(items)):
        raise ValueError(f"must hold {count} values, got {len(items)}")
    return items


def _text(value: Any) -> str:
    return _of(str, value)


def _code(value: Any) -> str:
    if _text(value) not in _CODES:
        raise ValueError("must be the code of a rule")
    return value


def _flag(value: Any) -> bool:
    return _of(bool, value)


def _offset(value: Any) -> int:
    """Bytes from the beginning; below 0 in an earlier cell."""
    if type(value) is not int or abs(value) >= 1 << 31:
        raise ValueError("must be an offset")
    return value


def _place(value: Any) -> int:
    if _offset(value) < 1:
        raise ValueError("must count from 1")
    return value


def _maybe(read: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else read(value)


def _of(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"must be of type {kind.__name__}, got {type(value).__name__}")
    return value
