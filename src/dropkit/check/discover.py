"""Which files are checked: Python and notebooks below the given paths, without what is excluded or ignored by git."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dropkit import files
from dropkit.check.config import Config
from dropkit.check.gitignore import Patterns
from dropkit.check.outcome import Note

SUFFIXES = (".py", ".pyi", ".pyw", ".ipynb")


@dataclass(slots=True)
class Found:
    """The files to check, each once, in order; what could not be looked at; and what the user may not have meant."""

    files: list[str] = field(default_factory=list[str])
    notes: list[Note] = field(default_factory=list[Note])
    warnings: list[str] = field(default_factory=list[str])


def search(paths: Iterable[str], config: Config) -> Found:
    """Look for the files to check. A file that is named is taken whatever it is called.

    Raises:
        FileNotFoundError: none of the paths exists.
    """
    found = Found()
    paths = list(paths)
    missing = [path for path in paths if not os.path.lexists(path)]
    if missing and len(missing) == len(paths):
        raise FileNotFoundError(f"no such file or folder: {', '.join(missing)}")
    for path in paths:
        if path in missing:
            found.notes.append(Note(path, "no such file or folder"))
        elif os.path.isdir(path):
            below = sorted(_below(path, config, found.notes))
            found.files += below
            if not below:
                found.warnings.append(f"no Python file or notebook to check below {path}")
        elif (why := _why_not_read(path)) is not None:
            found.notes.append(Note(path, why))
        else:
            found.files.append(path)
            # A script may do without an ending; another one says that the file is something else.
            if os.path.splitext(path)[1] and not path.endswith(SUFFIXES):
                found.warnings.append(f"{path} is checked as Python, which its name does not say it is")
    found.files, found.notes = list(dict.fromkeys(found.files)), list(dict.fromkeys(found.notes))
    return found


def discover(paths: Iterable[str], config: Config) -> list[str]:
    """The files that `search` finds."""
    return search(paths, config).files


def _why_not_read(path: str) -> str | None:
    try:
        status = os.stat(path)
    except OSError as error:
        return files.reason(error)
    return None if stat.S_ISREG(status.st_mode) else "not a regular file"


@dataclass(frozen=True, slots=True)
class _Ignored:
    """The patterns of the .gitignore in `folder`."""

    folder: str
    patterns: Patterns


def _below(folder: str, config: Config, notes: list[Note]) -> Iterator[str]:
    ignored = _ignored_above(folder, notes) if config.respect_gitignore else []
    pending = [(folder, ignored)]
    while pending:
        here, ignored = pending.pop()
        if config.respect_gitignore:
            ignored = [*ignored, *_ignored_in(here, notes)]
        try:
            entries = sorted(
                (one.name, one.path, one.is_dir(follow_symlinks=False), one.is_file(follow_symlinks=False))
                for one in os.scandir(here)
            )
        except OSError as error:
            notes.append(Note(here, files.reason(error)))
            continue
        for name, path, is_folder, is_file in entries:
            if not is_folder and not _is_python(name):
                continue
            if _excluded(path, name, config) or _ignores(path, is_folder, ignored):
                continue
            path = os.path.normpath(path)
            if is_folder:
                pending.append((path, ignored))
            elif is_file:
                yield path
            # A link to a folder is not followed: what it leads to is another tree, or is found without it.
            elif not os.path.isdir(path):
                why = _why_not_read(path)
                if why is None:
                    yield path
                else:
                    notes.append(Note(path, why))


def _is_python(name: str) -> bool:
    # Emacs marks a file that it edits by a link `.#name` that leads nowhere.
    return name.endswith(SUFFIXES) and not name.startswith(".#")


def _excluded(path: str, name: str, config: Config) -> bool:
    return any(
        name == pattern or (("*" in pattern or "/" in pattern) and config.matches(path, pattern))
        for pattern in config.exclude
    )


def _ignored_above(folder: str, notes: list[Note]) -> list[_Ignored]:
    """The .gitignore files from the root of the repository down to the parent of `folder`; none outside of one."""
    above = Path(os.path.realpath(folder))
    chain = [above, *above.parents]
    for depth, one in enumerate(chain):
        if os.path.lexists(one / ".git"):
            ignored = [each for place in reversed(chain[1 : depth + 1]) for each in _ignored_in(str(place), notes)]
            # Whoever names a folder that git ignores wants it checked.
            return [] if any(_ignores(str(each), True, ignored) for each in chain[:depth]) else ignored
    return []


def _ignored_in(folder: str, notes: list[Note]) -> list[_Ignored]:
    path = os.path.join(folder, ".gitignore")
    try:
        return [_Ignored(os.path.abspath(folder), Patterns.parse(files.read(path)))]
    except FileNotFoundError:
        return []
    except OSError as error:
        notes.append(Note(os.path.normpath(path), f"its patterns are not known: {files.reason(error)}"))
        return []


def _ignores(path: str, is_folder: bool, ignored: list[_Ignored]) -> bool:
    """The nearest .gitignore that has a word on the path decides."""
    for one in reversed(ignored):
        relative = os.path.relpath(os.path.abspath(path), one.folder).replace(os.sep, "/")
        verdict = one.patterns.verdict(relative, is_folder)
        if verdict is not None:
            return verdict
    return False
