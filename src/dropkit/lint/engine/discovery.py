"""Find the files to check: Python files and notebooks that are neither excluded nor ignored by git."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dropkit import files
from dropkit.lint.engine.config import SUFFIXES, Config
from dropkit.lint.engine.result import Note, SearchResult


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
            from dropkit.lint.engine.walk import files_below  # imported here: single files need no patterns of git

            below = sorted(files_below(path, config, result))
            result.files += below
            if not below:
                result.warnings.append(f"no Python file or notebook to check below {path}")
        elif (why := files.why_not_read(path)) is not None:
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
