"""Find the files to check: Python files and notebooks that are neither excluded nor ignored by git."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dropkit import files
from dropkit.lint.engine.config import Config, matches
from dropkit.lint.engine.gitignore import Patterns, part_of_path
from dropkit.lint.engine.result import Note

SUFFIXES = (".py", ".pyi", ".pyw", ".ipynb")


@dataclass(slots=True)
class SearchResult:
    """The files to check, each once and in order; notes on paths that cannot be read; and warnings."""

    files: list[str] = field(default_factory=list[str])
    notes: list[Note] = field(default_factory=list[Note])
    warnings: list[str] = field(default_factory=list[str])


def search(paths: Iterable[str], config: Config) -> SearchResult:
    """Find the files to check below `paths`. A file that is named itself is checked whatever its name.

    Raises:
        FileNotFoundError: none of the paths exists.
    """
    result = SearchResult()
    paths = list(paths)
    missing = [path for path in paths if not os.path.lexists(path)]
    if missing and len(missing) == len(paths):
        raise FileNotFoundError(f"no such file or folder: {', '.join(missing)}")
    for path in paths:
        if path in missing:
            result.notes.append(Note(path, "no such file or folder"))
        elif os.path.isdir(path):
            below = sorted(_below(path, config, result))
            result.files += below
            if not below:
                result.warnings.append(f"no Python file or notebook to check below {path}")
        elif (why := _why_unreadable(path)) is not None:
            result.notes.append(Note(path, why))
        else:
            result.files.append(path)
            # A script may have no suffix, but an unknown one probably means another language.
            if os.path.splitext(path)[1] and not path.endswith(SUFFIXES):
                result.warnings.append(f"{path} is checked as Python, although its name does not end in .py")
    result.files, result.notes = list(dict.fromkeys(result.files)), list(dict.fromkeys(result.notes))
    result.warnings = list(dict.fromkeys(result.warnings))
    return result


def excludes(path: str, config: Config) -> bool:
    """Whether the settings exclude a file, which need not exist."""
    full = Path(os.path.realpath(path))
    relative = full.relative_to(config.root) if full.is_relative_to(config.root) else full
    return any(pattern in relative.parts or config.matches(path, pattern) for pattern in config.exclude)


def _why_unreadable(path: str) -> str | None:
    try:
        status = os.stat(path)
    except OSError as error:
        return files.reason(error)
    return None if stat.S_ISREG(status.st_mode) else "not a regular file"


def _below(folder: str, config: Config, result: SearchResult) -> Iterator[str]:
    # Patterns of git are matched against real paths, without the links that lead to the repository.
    real = os.path.realpath(folder)
    parts = tuple(map(part_of_path, real.split(os.sep)))
    pending = [(folder, real, parts, _patterns_above(parts, result) if config.respect_gitignore else Patterns())]
    while pending:
        folder, real, parts, patterns = pending.pop()
        try:
            entries = sorted(
                (entry.name, entry.path, entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False))
                for entry in os.scandir(folder)
            )
        except OSError as error:
            result.notes.append(Note(folder, files.reason(error)))
            continue
        if config.respect_gitignore:
            patterns = _with_patterns(folder, len(parts), patterns, {name for name, *_ in entries}, result)
        for name, path, is_folder, is_file in entries:
            if not is_folder and not _is_python(name):
                continue
            target = os.path.join(real, name) if is_folder or is_file else os.path.realpath(path)
            target_parts = (*parts, part_of_path(name))
            is_excluded = _is_excluded(name, config.from_root(target), config)
            if is_excluded or patterns.ignores_parts(target_parts, is_folder):
                continue
            path = os.path.normpath(path)
            if is_folder:
                pending.append((path, target, target_parts, patterns))
            elif is_file:
                yield path
            # A link to a folder is not followed: the folder is checked at its own place, or not at all.
            elif not os.path.isdir(path):
                if (why := _why_unreadable(path)) is None:
                    yield path
                else:
                    result.notes.append(Note(path, why))


def _is_python(name: str) -> bool:
    # Emacs marks a file that is being edited by a broken link `.#name`.
    return name.endswith(SUFFIXES) and not name.startswith(".#")


def _is_excluded(name: str, path: str, config: Config) -> bool:
    return any(
        name == pattern or (("*" in pattern or "/" in pattern) and matches(pattern, path)) for pattern in config.exclude
    )


def _patterns_above(parts: tuple[str, ...], result: SearchResult) -> Patterns:
    """The patterns from the root of the repository down to the parent of a folder; none outside of a repository."""
    folders = [_folder(parts[:depth]) for depth in range(1, len(parts) + 1)]
    root = next((depth for depth in range(len(parts), 0, -1) if os.path.lexists(f"{folders[depth - 1]}/.git")), None)
    patterns = Patterns()
    for depth in range(root or len(parts), len(parts)):
        patterns = _with_patterns(folders[depth - 1], depth, patterns, {".git", ".gitignore"}, result)
        # The user asked for a folder that git ignores.
        if patterns.ignores_parts(parts[: depth + 1], is_folder=True):
            return Patterns()
    return patterns


def _folder(parts: Iterable[str]) -> str:
    return os.fsdecode(os.sep.join(parts).encode("latin-1")) or os.sep


def _with_patterns(
    folder: str, depth: int, patterns: Patterns, names: Container[str], result: SearchResult
) -> Patterns:
    """Add the patterns of `folder`, whose entries are `names`: from .gitignore, and from .git/info/exclude."""
    if ".git" in names:
        with suppress(OSError):  # most repositories have no such file
            patterns = patterns.with_file(files.read(_git_folder(folder) / "info" / "exclude"), depth)
    path = os.path.normpath(os.path.join(folder, ".gitignore"))
    if ".gitignore" not in names or (os.path.isdir(path) and not os.path.islink(path)):
        return patterns
    if os.path.islink(path):
        result.warnings.append(f"{path} is a symbolic link, which git does not follow: its patterns are not used")
        return patterns
    try:
        return patterns.with_file(files.read(path, follow=False), depth)
    except FileNotFoundError:
        return patterns
    except OSError as error:
        result.notes.append(Note(path, f"its patterns are unknown: {files.reason(error)}"))
        return patterns


def _git_folder(folder: str) -> Path:
    """The folder with the settings of the repository at `folder`; for a linked working tree, that of the main one."""
    git = Path(folder, ".git")
    if git.is_dir():
        return git
    git = Path(folder, os.fsdecode(files.read(git).removeprefix(b"gitdir:").strip()))
    with suppress(OSError):
        return git / os.fsdecode(files.read(git / "commondir").strip())
    return git
