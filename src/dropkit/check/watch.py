"""Check again whenever a file below the given paths changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from dropkit.check.config import BadConfig, Config
from dropkit.check.discover import SUFFIXES


def watch(paths: Sequence[str], config: Config, check: Callable[[], object]) -> None:
    """Run `check` now and after every change of a Python file or notebook, until interrupted.

    Raises:
        BadConfig: watchfiles is not installed.
    """

    try:
        from watchfiles import Change
        from watchfiles import watch as changes
    except ModuleNotFoundError as error:
        raise BadConfig('--watch needs watchfiles: pip install "dropkit[watch]"') from error

    def counts(change: Change, path: str) -> bool:
        return path.endswith(SUFFIXES) and not any(f"/{name}/" in path for name in config.exclude)

    click.clear()
    check()
    for _ in changes(*paths, watch_filter=counts, raise_interrupt=False):
        click.clear()
        check()
