"""Walk through a folder: the Python files and notebooks that neither the settings nor git leave out."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from dropkit import files
from dropkit.lint.engine.config import SUFFIXES, Config, matches
from dropkit.lint.engine.gitignore import Patterns, part_of_path
from dropkit.lint.engine.result import Note, SearchResult


def files_below(folder: str, config: Config, result: SearchResult) -> Iterator[str]:
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
            if is_excluded or patterns.ignores(target_parts, is_folder):
                continue
            path = os.path.normpath(path)
            if is_folder:
                pending.append((path, target, target_parts, patterns))
            elif is_file:
                yield path
            # A link to a folder is not followed: the folder is checked at its own place, or not at all.
            elif not os.path.isdir(path):
                if (why := files.why_not_read(path)) is None:
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
        if patterns.ignores(parts[: depth + 1], is_folder=True):
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
