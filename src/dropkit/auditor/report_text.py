"""The report of an audit as text for a terminal."""

from __future__ import annotations

import io
import shutil
import sys
from collections import Counter
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from dropkit.auditor.report_rows import AuditFinding, Row
from dropkit.diagnostics import Severity
from dropkit.report.console import console

_COLUMNS = ("site", "kind", "p", "dropped", "active in", "saved")
_MORE_COLUMNS = ("time", "granularity", "input", "calls", "after > before")
_RIGHT_ALIGNED = ("p", "dropped", "calls", "saved", "time")
# Without a terminal, a line is as long as it needs to be.
_NO_TERMINAL_WIDTH = 1000
# A narrower table has the first columns only.
_MIN_WIDE = 120
# How many findings of severity info are shown for each rule.
_MAX_INFO = 3


def render(
    rows: Sequence[Row],
    findings: Sequence[AuditFinding],
    stopped: str | None,
    summary: Sequence[str],
    width: int | None,
    color: bool,
) -> str:
    """Return the sites as a table, then findings and totals."""
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _NO_TERMINAL_WIDTH
    output = io.StringIO()
    screen = console(file=output, width=width, force_terminal=color, color_system="standard" if color else None)
    if rows:
        screen.print(_table(rows, width < _MIN_WIDE))
    if findings:
        screen.print()
    # Lines of text are not wrapped: editors and terminals turn places into links.
    for line in _finding_lines(findings):
        screen.print(line, soft_wrap=True)
    if stopped is not None:
        screen.print(Text(f"stopped in {stopped}", "bold red"), soft_wrap=True)
    if findings or rows:
        screen.print()
    for line in summary:
        screen.print(Text(line), soft_wrap=True)
    if findings:
        screen.print(Text("`dropkit explain CODE` explains a finding", "dim"), soft_wrap=True)
    return "\n".join(line.rstrip() for line in output.getvalue().rstrip("\n").split("\n"))


def _finding_lines(findings: Sequence[AuditFinding]) -> list[Text]:
    lines: list[Text] = []
    infos: Counter[str] = Counter()
    for finding in findings:
        infos[finding.code] += finding.severity is Severity.INFO
        if infos[finding.code] <= _MAX_INFO:
            lines.append(Text(str(finding), finding.severity.style))
    for code, count in infos.items():
        if count > _MAX_INFO:
            lines.append(Text(f"... and {code} at {count - _MAX_INFO} more sites", Severity.INFO.style))
    return lines


def _table(rows: Sequence[Row], is_narrow: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in (*_COLUMNS, *(() if is_narrow else _MORE_COLUMNS)):
        right = heading in _RIGHT_ALIGNED
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for row in rows:
        cells = (row.site, row.kind, row.p, row.rate, row.active_in, row.saved)
        neighbours = f"{row.after} > {row.before}" if row.after or row.before else ""
        more = (row.time, row.granularity, row.input_shape, str(row.calls), neighbours)
        table.add_row(*cells, *(() if is_narrow else more), style="dim" if row.is_inactive else None)
    return table
