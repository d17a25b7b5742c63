"""Settings: `[tool.dropkit]` of the nearest pyproject.toml, and options of the command line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from dropkit import files
from dropkit.arguments import did_you_mean
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.noqa import UNUSED
from dropkit.rules import RULES, Default, Rule

# What Python files and notebooks end in.
SUFFIXES = (".py", ".pyi", ".pyw", ".ipynb")

# Folders without code, or with other people's code.
EXCLUDED = (
    ".git", ".hg", ".svn", ".venv", "venv", "node_modules", "site-packages", "__pycache__", "build", "dist", "_build",
    ".tox", ".nox", ".eggs", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".dropkit_cache", ".ipynb_checkpoints",
)  # fmt: skip

# Most characters of a value that an error message shows.
_MAX_SHOWN = 100


class BadConfig(ValueError):
    """A setting is unknown, or its value is invalid."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a run. Patterns are relative to the folder `root`."""

    root: Path = field(default_factory=Path.cwd)
    select: tuple[str, ...] = ()
    extend_select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    preview: bool = False
    exclude: tuple[str, ...] = EXCLUDED
    per_file_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict["str", "tuple[str, ...]"])
    always_on_names: tuple[str, ...] = ()
    severity: Severity = Severity.WARNING
    respect_gitignore: bool = True
    respect_noqa: bool = True
    allow_unread: bool = False

    @classmethod
    def load(cls, start: Path) -> Config:
        """The settings of the nearest pyproject.toml with a [tool.dropkit] table at or above `start`, or the defaults.

        Raises:
            BadConfig: the file cannot be read, is not TOML, or has unknown or invalid settings.
        """
        start = Path(os.path.realpath(start))
        folders = [start, *start.parents] if os.path.isdir(start) else list(start.parents)
        for folder in folders:
            file = folder / "pyproject.toml"
            # A broken link is a file that cannot be read, not a missing one.
            if os.path.lexists(file):
                table = _table(file)
                if table is not None:
                    return cls.parse(table, folder, str(file))
        return cls(root=folders[0] if folders else start)

    @classmethod
    def read(cls, file: Path) -> Config:
        """The settings in `file`, a pyproject.toml.

        Raises:
            BadConfig: as `load`, or the file has no [tool.dropkit].
        """
        table = _table(file)
        if table is None:
            raise BadConfig(f"{file} has no [tool.dropkit] table")
        return cls.parse(table, Path(os.path.realpath(file)).parent, str(file))

    @classmethod
    def parse(cls, table: Mapping[str, Any], root: Path, where: str = "[tool.dropkit]") -> Config:
        """The settings of a table.

        Raises:
            BadConfig: a key is unknown, or its value is invalid.
        """
        settings: dict[str, Any] = {}
        for key, value in table.items():
            if key not in _KEYS:
                hint = did_you_mean(key, list(_KEYS)) or f"; known are {', '.join(_KEYS)}"
                raise BadConfig(f"{where}: {key} is not a setting{hint}")
            settings[key.replace("-", "_")] = _KEYS[key](f"{where}: {key}", value)
        if "extend_exclude" in settings:
            settings["exclude"] = (*settings.get("exclude", EXCLUDED), *settings.pop("extend_exclude"))
        return replace(cls(root=root), **settings)

    def with_options(self, **options: Any) -> Config:
        """Replace settings by options of the command line; None leaves a setting as it is."""
        return replace(self, **{name: value for name, value in options.items() if value is not None})

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that run.

        Raises:
            BadConfig: a code is neither that of a rule nor a prefix of one.
        """
        if self.select:
            chosen = _codes_of(self.select)
        else:
            defaults = (Default.ON, Default.PREVIEW) if self.preview else (Default.ON,)
            chosen = {rule.code for rule in RULES if rule.default in defaults}
        chosen = (chosen | _codes_of(self.extend_select)) - _codes_of(self.ignore)
        if not self.respect_noqa:
            chosen -= {UNUSED}
        return tuple(rule for rule in RULES if rule.code in chosen)

    def ignored_in(self, path: str) -> set[str]:
        """The codes that per-file-ignores turns off in `path`."""
        ignored: set[str] = set()
        for pattern, codes in self.per_file_ignores.items():
            if self.matches(path, pattern):
                ignored |= _codes_of(codes)
        return ignored

    def matches(self, path: str, pattern: str) -> bool:
        """Whether `pattern` matches `path`: its name, or its path from the root."""
        return matches(pattern, self.from_root(os.path.realpath(path)))

    def from_root(self, real: str) -> str:
        """A path without links, relative to the root; the whole path if it is not below the root."""
        root = os.path.join(self.root, "")
        return real.removeprefix(root).replace(os.sep, "/")


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern of the settings matches a path that is relative to the root."""
    name = path.rpartition("/")[2]
    return fnmatch(path, pattern) or fnmatch(name, pattern) or fnmatch(path, pattern.rstrip("/") + "/*")


def _table(file: Path) -> Mapping[str, Any] | None:
    try:
        data = files.read(file)
        if b"dropkit" not in data:
            return None  # without the word there is no table, and most projects have none
        toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
        table = toml.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise BadConfig(f"{file}: {files.reason(error)}") from error
    except RecursionError as error:
        raise BadConfig(f"{file}: nested too deeply") from error
    except ValueError as error:
        raise BadConfig(f"{file}: {error}") from error
    for key, full_key in (("tool", "tool"), ("dropkit", "tool.dropkit")):
        if key not in table:
            return None
        table = _table_of(f"{file}: {full_key}", table[key], "a table")
    return table


def _table_of(name: str, value: Any, wanted: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadConfig(f"{name} must be {wanted}, got {_shown(value)}")
    return cast("dict[str, Any]", value)


def _shown(value: Any) -> str:
    """A value for an error message, cut to a line; its type, where Python cannot print it."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _codes_of(selectors: Iterable[str]) -> set[str]:
    """The codes of the rules that codes, prefixes of codes, names or ALL select."""
    chosen: set[str] = set()
    for selector in selectors:
        prefix = selector.upper()
        selected = {r.code for r in RULES if selector in ("ALL", r.name) or r.code.startswith(prefix)}
        if not selector or not selected:
            hint = did_you_mean(prefix, [rule.code for rule in RULES])
            wanted = "codes such as DRP101 or DRP1, or names"
            raise BadConfig(f"select and ignore must hold {wanted}, got {_shown(selector)}{hint}")
        chosen |= selected
    return chosen


def _strings(name: str, value: Any) -> tuple[str, ...]:
    items = cast("list[Any]", value if isinstance(value, (list, tuple)) else [None])
    if not all(isinstance(item, str) for item in items):
        raise BadConfig(f"{name} must be a list of strings, got {_shown(value)}")
    return tuple(items)


def _codes(name: str, value: Any) -> tuple[str, ...]:
    codes = _strings(name, value)
    try:
        _codes_of(codes)
    except BadConfig as error:
        raise BadConfig(f"{name}: {error}") from error
    return codes


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadConfig(f"{name} must be true or false, got {_shown(value)}")
    return value


def _severity(name: str, value: Any) -> Severity:
    try:
        return Severity(value)
    except ValueError as error:
        raise BadConfig(f"{name} must be error, warning or info, got {_shown(value)}") from error


def _by_file(name: str, value: Any) -> dict[str, tuple[str, ...]]:
    table = _table_of(name, value, "a table of pattern = [codes]")
    return {pattern: _codes(f"{name}.{pattern}", codes) for pattern, codes in table.items()}


_KEYS: dict[str, Any] = {
    "select": _codes,
    "extend-select": _codes,
    "ignore": _codes,
    "preview": _boolean,
    "exclude": _strings,
    "extend-exclude": _strings,
    "per-file-ignores": _by_file,
    "always-on-names": _strings,
    "severity": _severity,
    "respect-gitignore": _boolean,
    "allow-unread": _boolean,
}
