"""The summary of a prediction as tables for a terminal."""

from __future__ import annotations

import io

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dropkit.mc import columns
from dropkit.mc.summary import Summary
from dropkit.report.columns import Column
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
    for warning in summary.warnings:
        screen.print(f"warning: {warning}", style="bold yellow", highlight=False)
    screen.print(repr(summary.prediction), style="bold", highlight=False)
    screen.print(_rows(columns.measures(summary)))
    changed = summary.changed()
    if changed:
        screen.print(f"{changed}\n", highlight=False)
    if summary.report is not None:
        screen.print(summary.report.table(), highlight=False)
        screen.print()
    if summary.top:
        screen.print(summary.least_certain_title(), style="bold", highlight=False)
        screen.print(_rows(columns.least_certain(summary)))
    for note in summary.prediction.notes:
        screen.print(f"note: {note}", style="yellow", highlight=False)
    file = screen.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip("\n").split("\n"))


def _rows(shown: list[Column]) -> Table:
    # A page has space for the others, too.
    shown = [column for column in shown if not column.priority]
    table = Table(box=SIMPLE_HEAD)
    for column in shown:
        table.add_column(column.heading, justify="right" if column.is_number else "left")
    for cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*(cell.text for cell in cells))
    return table
