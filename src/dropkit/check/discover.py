"""Which files are checked: Python and notebooks below the given paths, without what is excluded or ignored by git."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dropkit.check.config import Config

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

SUFFIXES = (".py", ".pyi", ".pyw", ".ipynb")


def discover(paths: Iterable[str], config: Config) -> list[str]:
    """The files to check, each once, in order. A file that is named is taken whatever it is called.

    Raises:
        FileNotFoundError: a path does not exist.
    """
    found: dict[str, None] = {}
    for path in paths:
        if os.path.isdir(path):
            for file in sorted(_below(path, config)):
                found.setdefault(file)
        elif os.path.exists(path):
            found.setdefault(path)
        else:
            raise FileNotFoundError(f"no such file or folder: {path}")
    return list(found)


def _below(folder: str, config: Config) -> Iterator[str]:
    specs = _specs_above(folder) if config.respect_gitignore else []
    pending = [(folder, specs)]
    while pending:
        here, specs = pending.pop()
        if config.respect_gitignore:
            specs = [*specs, *_spec(here)]
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and not entry.name.endswith(SUFFIXES):
                continue
            if _excluded(entry.path, entry.name, config) or _ignored(entry.path, is_folder, specs):
                continue
            if is_folder:
                pending.append((entry.path, specs))
            elif entry.is_file():
                yield os.path.normpath(entry.path)


def _excluded(path: str, name: str, config: Config) -> bool:
    return any(
        name == pattern or (("*" in pattern or "/" in pattern) and config.matches(path, pattern))
        for pattern in config.exclude
    )


def _specs_above(folder: str) -> list[tuple[str, GitIgnoreSpec]]:
    """The .gitignore files from the root of the repository down to the parent of `folder`; none outside of one."""
    above = Path(folder).resolve()
    chain = [above, *above.parents]
    for depth, one in enumerate(chain):
        if (one / ".git").exists():
            specs = [spec for each in reversed(chain[1 : depth + 1]) for spec in _spec(str(each))]
            # Whoever names a folder that git ignores wants it checked.
            ignored = any(_ignored(str(each), True, specs) for each in chain[:depth])
            return [] if ignored else specs
    return []


def _spec(folder: str) -> list[tuple[str, GitIgnoreSpec]]:
    try:
        with open(os.path.join(folder, ".gitignore"), encoding="utf-8", errors="replace") as file:
            from pathspec import GitIgnoreSpec  # most runs on one file need it not

            return [(os.path.abspath(folder), GitIgnoreSpec.from_lines(file))]
    except OSError:
        return []


def _ignored(path: str, is_folder: bool, specs: list[tuple[str, GitIgnoreSpec]]) -> bool:
    """The nearest .gitignore that has a word on the path decides."""
    for base, spec in reversed(specs):
        relative = os.path.relpath(os.path.abspath(path), base).replace(os.sep, "/") + ("/" if is_folder else "")
        verdict = spec.check_file(relative).include
        if verdict is not None:
            return verdict
    return False
