"""Which files are checked: Python and notebooks below the given paths, without what is excluded or ignored by git."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dropkit import files
from dropkit.lint.engine.config import Config, means
from dropkit.lint.engine.gitignore import Patterns, part_of_path
from dropkit.lint.engine.result import Note

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
            below = sorted(_below(path, config, found))
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
    found.warnings = list(dict.fromkeys(found.warnings))
    return found


def discover(paths: Iterable[str], config: Config) -> list[str]:
    """The files that `search` finds."""
    return search(paths, config).files


def excludes(path: str, config: Config) -> bool:
    """Whether a search of its project would pass the file over, by the settings."""
    full = Path(os.path.realpath(path))
    inside = full.relative_to(config.root) if full.is_relative_to(config.root) else full
    return any(name in inside.parts or config.matches(path, name) for name in config.exclude)


def _why_not_read(path: str) -> str | None:
    try:
        status = os.stat(path)
    except OSError as error:
        return files.reason(error)
    return None if stat.S_ISREG(status.st_mode) else "not a regular file"


def _below(folder: str, config: Config, found: Found) -> Iterator[str]:
    # Patterns are compared with the parts of real paths: a link on the way to the repository is no part of them.
    real = os.path.realpath(folder)
    parts = tuple(map(part_of_path, real.split(os.sep)))
    pending = [(folder, real, parts, _ignored_above(parts, found) if config.respect_gitignore else Patterns())]
    while pending:
        here, real, parts, ignored = pending.pop()
        try:
            entries = sorted(
                (one.name, one.path, one.is_dir(follow_symlinks=False), one.is_file(follow_symlinks=False))
                for one in os.scandir(here)
            )
        except OSError as error:
            found.notes.append(Note(here, files.reason(error)))
            continue
        if config.respect_gitignore:
            ignored = _with_ignored(here, len(parts), ignored, {entry[0] for entry in entries}, found)
        for name, path, is_folder, is_file in entries:
            if not is_folder and not _is_python(name):
                continue
            target = os.path.join(real, name) if is_folder or is_file else os.path.realpath(path)
            way = (*parts, part_of_path(name))
            if _excluded(name, config.way_to(target), config) or ignored.verdict_on(way, is_folder):
                continue
            path = os.path.normpath(path)
            if is_folder:
                pending.append((path, target, way, ignored))
            elif is_file:
                yield path
            # A link to a folder is not followed: what it leads to is another tree, or is found without it.
            elif not os.path.isdir(path):
                why = _why_not_read(path)
                if why is None:
                    yield path
                else:
                    found.notes.append(Note(path, why))


def _is_python(name: str) -> bool:
    # Emacs marks a file that it edits by a link `.#name` that leads nowhere.
    return name.endswith(SUFFIXES) and not name.startswith(".#")


def _excluded(name: str, way: str, config: Config) -> bool:
    return any(
        name == pattern or (("*" in pattern or "/" in pattern) and means(pattern, way)) for pattern in config.exclude
    )


def _ignored_above(parts: tuple[str, ...], found: Found) -> Patterns:
    """The patterns from the root of the repository down to the parent of the folder; none outside of one."""
    folders = [_folder(parts[:depth]) for depth in range(1, len(parts) + 1)]
    root = next((depth for depth in range(len(parts), 0, -1) if os.path.lexists(f"{folders[depth - 1]}/.git")), None)
    ignored = Patterns()
    for depth in range(root or len(parts), len(parts)):
        ignored = _with_ignored(folders[depth - 1], depth, ignored, {".git", ".gitignore"}, found)
        # Whoever names a folder that git ignores wants it checked.
        if ignored.verdict_on(parts[: depth + 1], is_folder=True):
            return Patterns()
    return ignored


def _folder(parts: Iterable[str]) -> str:
    return os.fsdecode(os.sep.join(parts).encode("latin-1")) or os.sep


def _with_ignored(folder: str, depth: int, ignored: Patterns, names: Container[str], found: Found) -> Patterns:
    """`ignored` and the patterns in `folder`, which holds `names`: of its repository, if it is one, and its own."""
    if ".git" in names:
        with suppress(OSError):  # most repositories have none
            ignored = ignored.with_file(files.read(_git_folder(folder) / "info" / "exclude"), depth)
    path = os.path.normpath(os.path.join(folder, ".gitignore"))
    if ".gitignore" not in names or (os.path.isdir(path) and not os.path.islink(path)):
        return ignored
    if os.path.islink(path):
        found.warnings.append(f"{path} is a symbolic link, which git does not follow: its patterns do not hold")
        return ignored
    try:
        return ignored.with_file(files.read(path, follow=False), depth)
    except FileNotFoundError:
        return ignored
    except OSError as error:
        found.notes.append(Note(path, f"its patterns are not known: {files.reason(error)}"))
        return ignored


def _git_folder(folder: str) -> Path:
    """What holds the settings of the repository at `folder`, of a linked working tree those of the main one."""
    place = Path(folder, ".git")
    if place.is_dir():
        return place
    place = Path(folder, os.fsdecode(files.read(place).removeprefix(b"gitdir:").strip()))
    with suppress(OSError):
        return place / os.fsdecode(files.read(place / "commondir").strip())
    return place
