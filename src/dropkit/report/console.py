"""Rich consoles that print text literally: neither brackets nor `:name:` are markup."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn


def console(**options: Any) -> Console:
    """Return a rich Console with these options that ignores markup, in tables too."""
    return Console(markup=False, emoji=False, **options)


def progress_columns() -> tuple[ProgressColumn, ...]:
    """Return the columns of a progress bar: description, bar, steps done, remaining time."""
    return TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
