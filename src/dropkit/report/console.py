"""Consoles that show text as it is: brackets in a name are no style, and a word between colons is no picture."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn


def console(**options: Any) -> Console:
    """A rich Console with these options, on which markup has no meaning, in tables neither."""
    return Console(markup=False, emoji=False, **options)


def progress_columns() -> tuple[ProgressColumn, ...]:
    """The columns of a progress bar: what is done, how much of it, and how long it will take."""
    return TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
