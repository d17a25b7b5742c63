"""Cache the results of files between runs, as plain JSON.

The file may come from anybody: values of an unexpected type or range are rejected.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, cast, get_type_hints

from dropkit import files
from dropkit.diagnostics import Edit
from dropkit.lint.engine.result import FileResult
from dropkit.rules import RULES

_CODES = frozenset(rule.code for rule in RULES)
# Numbers are below this, and count from 1; but edits count in bytes, below 0 in an earlier cell of a notebook.
_MOST = 1 << 31
_LEAST: dict[type, int] = {Edit: -_MOST}


def dump(result: FileResult) -> list[Any]:
    """The result of a file as JSON values, without its path."""
    return _plain(result)


def load(path: str, values: Any) -> FileResult:
    """The result of a file from the values that `dump` wrote.

    Raises:
        ValueError: `dump` cannot have written them.
    """
    result: FileResult = _read(FileResult, values, path)
    if not _CODES.issuperset(finding.code for finding in result.findings):
        raise ValueError("must be codes of rules")
    return result


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
        except _BadFolder as error:
            self.warning = f"results are neither kept nor reused: {error}"
            self.file = None
        except (OSError, ValueError, RecursionError):
            pass

    def get(self, path: str, data: bytes, purpose: str = "findings") -> FileResult | None:
        """The result of a file with this content, if there is one for this purpose."""
        try:
            digest, values = self.entries[_key(path, purpose)]
            return load(path, values) if digest == _digest(data) else None
        except (KeyError, TypeError, ValueError):
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


def _plain(value: Any) -> Any:
    """A record as the list of its fields without its path, a tuple as a list, and any other value itself."""
    if is_dataclass(value):
        return [_plain(getattr(value, name)) for name in _fields(type(value))]
    return list(map(_plain, cast("tuple[Any, ...]", value))) if isinstance(value, tuple) else value


@cache
def _fields(record: type) -> dict[str, Any]:
    """The types of the fields of a record by name, without its path."""
    return {name: kind for name, kind in get_type_hints(record).items() if name != "path"}


def _read(kind: Any, value: Any, path: str, least: int = 1) -> Any:
    """What `_plain` made `value` of, if that was of the type `kind`, and its numbers not below `least`."""
    # `typing.get_origin` and `get_args` take longer than all the rest.
    container: Any = getattr(kind, "__origin__", None)
    parts: tuple[Any, ...] = getattr(kind, "__args__", ())
    if type(None) in parts:
        return None if value is None else _read(parts[0], value, path)
    if container is dict:
        return {name: _read(parts[1], item, path) for name, item in _typed(dict, value).items()}
    if container is not None:
        items = _typed(list, value)
        # Most items are strings, and there are many.
        is_known = parts[0] is str and all(isinstance(item, str) for item in items)
        return container(items if is_known else (_read(parts[0], item, path) for item in items))
    if is_dataclass(kind):
        return _record(cast("Any", kind), value, path)
    if issubclass(kind, Enum):
        return kind(value)
    if kind is int and not least <= _typed(int, value) < _MOST:
        raise ValueError(f"must be a number from {least} to {_MOST}, got {value}")
    return _typed(kind, value)


def _record(kind: Any, value: Any, path: str) -> Any:
    types = zip(_fields(kind).items(), _typed(list, value), strict=True)
    known = {name: _read(type_, item, path, _LEAST.get(kind, 1)) for (name, type_), item in types}
    return kind(**known, **({"path": path} if "path" in kind.__slots__ else {}))


def _typed(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"must be of type {kind.__name__}, got {type(value).__name__}")
    return value
