"""`dropkit check --watch`: check again whenever a file changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import click

from dropkit.extras import needed_for
from dropkit.lint.engine.config import SUFFIXES, Config


def watch(paths: Sequence[str], config: Config, check: Callable[[], object]) -> None:
    """Run `check` now, and after every change of a Python file or notebook below `paths`, until interrupted.

    Raises:
        MissingPackage: watchfiles is not installed.
        FileNotFoundError: none of the paths exists.
    """
    existing = [path for path in paths if os.path.exists(path)]
    if not existing:
        raise FileNotFoundError(f"no such file or folder: {', '.join(paths)}")

    with needed_for("--watch", "watch"):
        from watchfiles import Change
        from watchfiles import watch as changes

    def is_relevant(change: Change, path: str) -> bool:
        return path.endswith(SUFFIXES) and not any(f"/{name}/" in path for name in config.exclude)

    # The watch begins before the first check, so that changes during that check are not missed.
    is_first = True
    for changed in changes(
        *existing, watch_filter=is_relevant, raise_interrupt=False, rust_timeout=100, yield_on_timeout=True
    ):
        if changed or is_first:
            is_first = False
            click.clear()
            check()
