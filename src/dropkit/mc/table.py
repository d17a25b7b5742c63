"""The summary of a prediction as tables for a terminal."""

from __future__ import annotations

import io
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dropkit.mc.summary import Summary
from dropkit.report.console import console

_WIDTH = 100


def table(summary: Summary, color: bool) -> str:
    """Return the measures, the report and the least certain inputs as text."""
    screen = console(
        file=io.StringIO(),
        width=_WIDTH,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,  # the caller has read NO_COLOR
    )
    screen.print(repr(summary.prediction), style="bold", highlight=False)
    screen.print(_rows(("measure", "mean over inputs", "standard error of one input"), summary.measures()))
    if summary.report is not None:
        screen.print(summary.report.table(), highlight=False)
        screen.print()
    if summary.top:
        screen.print(f"least certain, by {summary.ordered_by}", style="bold", highlight=False)
        screen.print(_rows(*summary.least_certain()))
    for note in summary.prediction.notes:
        screen.print(f"note: {note}", style="yellow", highlight=False)
    file = screen.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip("\n").split("\n"))


def _rows(head: tuple[str, ...], rows: list[Any]) -> Table:
    table = Table(*head, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    return table
