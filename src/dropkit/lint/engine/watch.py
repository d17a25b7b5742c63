"""Check again whenever a file below the given paths changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import click

from dropkit.lint.engine.config import BadConfig, Config
from dropkit.lint.engine.discovery import SUFFIXES


def watch(paths: Sequence[str], config: Config, check: Callable[[], object]) -> None:
    """Run `check` now and after every change of a Python file or notebook, until interrupted.

    Raises:
        BadConfig: watchfiles is not installed.
        FileNotFoundError: none of the paths exists.
    """
    there = [path for path in paths if os.path.exists(path)]
    if not there:
        raise FileNotFoundError(f"no such file or folder: {', '.join(paths)}")

    try:
        from watchfiles import Change
        from watchfiles import watch as changes
    except ModuleNotFoundError as error:
        raise BadConfig('--watch needs watchfiles: pip install "dropkit[watch]"') from error

    def counts(change: Change, path: str) -> bool:
        return path.endswith(SUFFIXES) and not any(f"/{name}/" in path for name in config.exclude)

    # The watch begins before the first check, so that what changes during it is not missed.
    begun = False
    for found in changes(*there, watch_filter=counts, raise_interrupt=False, rust_timeout=100, yield_on_timeout=True):
        if found or not begun:
            begun = True
            click.clear()
            check()
