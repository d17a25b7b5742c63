"""Cache the results of files between runs, as plain JSON.

The file may come from anybody: values of an unexpected type or range are rejected.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from dropkit import files
from dropkit.diagnostics import CrossFileCondition, Diagnostic, Edit, FactCondition, Fix, Severity, Span
from dropkit.lint.engine.project_index import ClassSummary
from dropkit.lint.engine.result import FileResult, Note
from dropkit.rules import RULES

T = TypeVar("T")
_CODES = frozenset(rule.code for rule in RULES)


def dump(result: FileResult) -> list[Any]:
    """The result of a file as JSON values, without its path."""
    classes = result.classes
    return [
        [_dump_finding(finding) for finding in result.findings],
        [[note.message, note.cell, note.line] for note in result.notes],
        None if classes is None else [getattr(classes, field.name) for field in fields(classes)],
    ]


def load(path: str, values: Any) -> FileResult:
    """The result of a file from the values that `dump` wrote.

    Raises:
        ValueError: `dump` cannot have written them.
    """
    findings, notes, classes = _items(values, 3)
    return FileResult(
        tuple(_load_finding(path, finding) for finding in _items(findings)),
        tuple(_load_note(path, note) for note in _items(notes)),
        _optional(_load_classes, classes),
    )


def user_folder(root: Path) -> Path | None:
    """The folder for results of the project at `root`, in the user's cache folder, where no project can put files.

    None where the user has no home folder, or a relative one.
    """
    cache_home = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(cache_home) if os.path.isabs(cache_home) else Path.home() / ".cache"
    except RuntimeError:
        return None
    if not base.is_absolute():
        return None
    # Symbolic links above it are the user's own, and resolved here.
    return Path(os.path.realpath(base)) / "dropkit" / _digest(os.fsencode(os.path.realpath(root)))


class Cache:
    """Results by path and content, in one JSON file of `folder`. A file that cannot be read is an empty cache.

    `warning` says why results could not be kept.
    """

    def __init__(self, folder: Path | None, settings: str) -> None:
        self.file = None if folder is None else folder / f"{_digest((settings + _version()).encode())}.json"
        self.entries: dict[str, Any] = {}
        self.has_changed: bool = False
        self.warning: str | None = None
        if self.file is None:
            return
        try:
            _must_be_a_folder(self.file.parent)
            entries = json.loads(files.read(self.file, follow=False))
            self.entries = entries if isinstance(entries, dict) else {}
        except FileNotFoundError:
            pass
        except _BadFolder as error:
            self.warning = f"results are neither kept nor reused: {error}"
            self.file = None
        except (OSError, ValueError, RecursionError):
            pass

    def get(self, path: str, data: bytes, purpose: str = "findings") -> FileResult | None:
        """The result of a file with this content, if there is one for this purpose."""
        try:
            digest, values = _items(self.entries.get(_key(path, purpose)), 2)
            return load(path, values) if digest == _digest(data) else None
        except ValueError:
            return None

    def put(self, path: str, data: bytes, values: list[Any], purpose: str = "findings") -> None:
        """Keep a result, as `dump` wrote it."""
        if self.file is not None:
            self.entries[_key(path, purpose)] = [_digest(data), values]
            self.has_changed = True

    def save(self) -> None:
        """Write the file if there are new results; where that fails, set `warning`."""
        if self.file is None or not self.has_changed:
            return
        folder = self.file.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _must_be_a_folder(folder)
            files.create(folder / ".gitignore", b"*\n")
            files.write(self.file, json.dumps(self.entries, separators=(",", ":")).encode())
        except (OSError, RecursionError) as error:
            why = files.reason(error) if isinstance(error, OSError) else "the results are nested too deeply"
            self.warning = f"results are not kept in {folder}: {why}"


def _key(path: str, purpose: str) -> str:
    return f"{purpose} {os.path.abspath(path)}"


class _BadFolder(OSError):
    """The cache folder is a symbolic link, or lies behind one that leads out of its project."""


def _must_be_a_folder(folder: Path) -> None:
    if files.leads_out(folder / "file") or stat.S_ISLNK(os.lstat(folder).st_mode):
        raise _BadFolder(f"{folder} is, or lies behind, a symbolic link")


@cache
def _version() -> str:
    """The linter's own source files, and when they were written: results of another version are not reused.

    Their contents would say it, too, but take longer to read than a file takes to check.
    """
    package = Path(__file__).parents[2]
    folders = (package, *(package / name for name in ("lint/engine", "lint/semantic", "rules")))
    sources = {entry.path: entry for folder in folders for entry in os.scandir(folder) if entry.name.endswith(".py")}
    states = ((path, sources[path].stat()) for path in sorted(sources))
    return repr([(path, state.st_size, state.st_mtime_ns) for path, state in states])


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _dump_finding(finding: Diagnostic) -> list[Any]:
    fix = None
    if finding.fix is not None:
        edits = [[edit.start, edit.end, edit.text] for edit in finding.fix.edits]
        fix = [finding.fix.title, edits, finding.fix.safe, finding.fix.changes_training]
    condition = finding.unless
    unless = (
        None if condition is None else [condition.owner, condition.attribute, condition.argument, [*condition.bases]]
    )
    span = list(asdict(finding.span).values())
    given = None if finding.given is None else [list(finding.given.needs), list(finding.given.refuted_by)]
    return [finding.code, finding.message, finding.severity.value, span, fix, unless, finding.cell, given]


def _load_finding(path: str, values: Any) -> Diagnostic:
    code, message, severity, span, fix, unless, cell, given = _items(values, 8)
    line, column, end_line, end_column = map(_ordinal, _items(span, 4))
    return Diagnostic(
        _code(code),
        _string(message),
        Severity(_string(severity)),
        path,
        Span(line, column, end_line, end_column),
        _optional(_load_fix, fix),
        _optional(_load_condition, unless),
        _optional(_ordinal, cell),
        _optional(lambda facts: FactCondition(*(tuple(_strings(each)) for each in _items(facts, 2))), given),
    )


def _load_condition(values: Any) -> CrossFileCondition:
    owner, attribute, argument, bases = _items(values, 4)
    return CrossFileCondition(_string(owner), _string(attribute), _string(argument), tuple(_strings(bases)))


def _load_fix(values: Any) -> Fix:
    title, edits, safe, changes_training = _items(values, 4)
    return Fix(
        _string(title), tuple(map(_load_edit, _items(edits))), _typed(bool, safe), _typed(bool, changes_training)
    )


def _load_edit(values: Any) -> Edit:
    start, end, text = _items(values, 3)
    return Edit(_offset(start), _offset(end), _string(text))


def _load_note(path: str, values: Any) -> Note:
    message, cell, line = _items(values, 3)
    return Note(path, _string(message), _optional(_ordinal, cell), _optional(_ordinal, line))


def _load_classes(values: Any) -> ClassSummary:
    bases, reads, arguments, owners, calls, imports, keepers, facts = _items(values, 8)
    return ClassSummary(
        _strings_by_name(bases),
        _strings_by_name(reads),
        _strings_by_name(arguments),
        _strings(owners),
        _strings(calls),
        _strings(imports),
        _strings(keepers),
        list(map(_strings, _items(facts))),
    )


def _strings_by_name(value: Any) -> dict[str, list[str]]:
    return {name: _strings(strings) for name, strings in cast("dict[str, Any]", _typed(dict, value)).items()}


def _strings(value: Any) -> list[str]:
    return [_string(item) for item in _items(value)]


def _items(value: Any, count: int | None = None) -> list[Any]:
    items = cast("list[Any]", _typed(list, value))
    if count not in (None, len(items)):
        raise ValueError(f"must hold {count} values, got {len(items)}")
    return items


def _string(value: Any) -> str:
    return _typed(str, value)


def _code(value: Any) -> str:
    if _string(value) not in _CODES:
        raise ValueError(f"must be the code of a rule, got {value!r}")
    return value


def _offset(value: Any) -> int:
    """A number of bytes; below 0 in an earlier cell of a notebook."""
    if type(value) is not int or abs(value) >= 1 << 31:
        raise ValueError(f"must be an offset, got {value!r}")
    return value


def _ordinal(value: Any) -> int:
    if _offset(value) < 1:
        raise ValueError(f"must be at least 1, got {value}")
    return value


def _optional(load: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else load(value)


def _typed(type_: type[T], value: Any) -> T:
    if not isinstance(value, type_):
        raise ValueError(f"must be of type {type_.__name__}, got {type(value).__name__}")
    return value
