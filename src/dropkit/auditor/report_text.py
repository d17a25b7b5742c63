"""The report of an audit for a terminal."""

from __future__ import annotations

import io
import shutil
import sys
from collections import Counter

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from dropkit.auditor.report import Report, summary
from dropkit.diagnostics import Severity
from dropkit.report.console import console

_LEFT = ("site", "kind", "p", "dropped", "draws in", "held")
_MORE = ("time", "one coin each", "input", "calls", "after > before")
_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold blue"}
# Where nobody's terminal sets a width, a line is as long as it needs to be.
_WIDTH = 1000
# Below this a table has the columns that matter most.
_NARROW = 120
_ENOUGH = 3


def text(report: Report, width: int | None, color: bool) -> str:
    """The sites, the findings, the totals."""
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
    screen = console(file=io.StringIO(), width=width, force_terminal=color, color_system="standard" if color else None)
    if report.sites:
        screen.print(_table(report, width < _NARROW))
    if report.findings:
        screen.print()
    mild: Counter[str] = Counter()
    for finding in report.findings:
        mild[finding.code] += finding.severity is Severity.INFO
        # Of what is mild and everywhere the first few say enough.
        if mild[finding.code] <= _ENOUGH:
            # Whole on one line, however long: editors and terminals make links of places.
            screen.print(Text(str(finding), _STYLES[finding.severity]), soft_wrap=True)
    for code, count in mild.items():
        if count > _ENOUGH:
            screen.print(Text(f"... and {code} at {count - _ENOUGH} more sites", _STYLES[Severity.INFO]))
    if report.stopped is not None:
        screen.print(Text(f"stopped in {report.stopped}", "bold red"), soft_wrap=True)
    if report.findings or report.sites:
        screen.print()
    for line in summary(report):
        screen.print(Text(line), soft_wrap=True)
    if report.findings:
        screen.print(Text("`dropkit explain CODE` says what happens and why", "dim"), soft_wrap=True)
    file = screen.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().rstrip("\n").split("\n"))


def _table(report: Report, narrow: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in (*_LEFT, *(() if narrow else _MORE)):
        right = heading in ("p", "dropped", "calls", "held", "time")
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for row in report.rows:
        style = "dim" if row.draws in ("never", "not reached", "rate only") else None
        cells = (row.site, row.kind, row.p, row.rate, row.draws, row.kept)
        between = f"{row.after} > {row.before}" if row.after or row.before else ""
        more = (row.time, row.coins, row.shape, str(row.calls), between)
        table.add_row(*cells, *(() if narrow else more), style=style)
    return table
