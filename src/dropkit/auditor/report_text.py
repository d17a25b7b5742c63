"""The report of an audit as text for a terminal: nothing is wider than it, and no `file:line` is broken."""

from __future__ import annotations

import io
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from dropkit.auditor.folding import folded
from dropkit.auditor.report_rows import AuditFinding, Row
from dropkit.report.console import console
from dropkit.report.units import counted

# Headings and cells, from left to right; `Row.cells` has them, too.
_RIGHT_ALIGNED = ("p", "dropped", "calls", "saved", "time")
# The first columns are always there; the others as far as there is room.
_ALWAYS: tuple[str, ...] = ("site", "kind", "p", "dropped", "active in")
_IF_THERE_IS_ROOM: tuple[str, ...] = ("time", "granularity", "saved", "input", "calls", "after > before")
# Between two columns.
_GAP = 2
# A name is folded before a column is left out, but not below this.
_MIN_NAME = 32
_ANY_WIDTH = 10_000
# How many sites are named for each finding.
_MAX_SITES = 5


def render(
    rows: Sequence[Row],
    findings: Sequence[AuditFinding],
    stopped: str | None,
    summary: Sequence[str],
    width: int | None,
    color: bool,
) -> str:
    """Return the sites as a table, then findings and totals. Without a width all columns are shown."""
    output = io.StringIO()
    table, left_out = _table(rows, width)
    lines = [*_finding_lines(findings, width)]
    if stopped is not None:
        lines += _wrapped(f"stopped in {stopped}", width, "bold red")
    if lines:
        lines.append(Text())
    for line in summary:
        lines += _wrapped(line, width)
    if left_out:
        lines += _wrapped(f"columns left out: {', '.join(left_out)} (--wide or table(wide=True))", width, "dim")
    if findings:
        lines += _wrapped("`dropkit explain CODE` explains a finding", width, "dim")
    # Lines and columns have their width by now; in a terminal that is too narrow they are not broken.
    screen = console(file=output, width=_ANY_WIDTH, force_terminal=color, color_system="standard" if color else None)
    if rows:
        screen.print(table)
        screen.print()
    for line in lines:
        screen.print(line, soft_wrap=True)
    return "\n".join(line.rstrip() for line in output.getvalue().rstrip("\n").split("\n"))


def terminal_width() -> int:
    """The terminal's columns, or COLUMNS, or 80."""
    return shutil.get_terminal_size().columns


def _finding_lines(findings: Sequence[AuditFinding], width: int | None) -> Iterator[Text]:
    """Yield each finding once, with the sites that have it."""
    sites: dict[tuple[str, str], list[AuditFinding]] = {}
    for finding in findings:
        sites.setdefault((finding.code, finding.message), []).append(finding)
    for alike in sites.values():
        first = alike[0]
        yield from _wrapped(f"{first.code} {first.severity.value}: {first.message}", width, first.severity.style)
        places = folded(alike, lambda finding: finding.where, lambda finding: None)
        for where, _ in places[:_MAX_SITES]:
            yield from _wrapped(where, width, indent="  ")
        more = sum(len(rest) for _, rest in places[_MAX_SITES:])
        if more:
            yield Text(f"  ... and at {counted(more, 'more site')}")


def _wrapped(line: str, width: int | None, style: str = "", indent: str = "") -> list[Text]:
    """Break a line between words; a path with its line is one word."""
    parts = textwrap.wrap(line, width or _ANY_WIDTH, break_long_words=False, break_on_hyphens=False,
        initial_indent=indent, subsequent_indent=indent + "  ")  # fmt: skip
    return [Text(part, style) for part in parts]


def _table(rows: Sequence[Row], width: int | None) -> tuple[Table, list[str]]:
    """Return the table, and the headings of the columns that are left out."""
    cells = [row.cells for row in rows]
    needed = (
        {heading: max(len(heading), *(len(row[heading]) for row in cells)) for heading in cells[0]} if cells else {}
    )
    if width is None:
        return _filled(rows, cells, list(needed), {}), []
    # "skipped in this run" may take several lines.
    natural, needed = needed.get("active in", 0), {**needed, "active in": len("active in")}
    width -= 1  # the padding of the last column
    others = sum(needed[heading] + _GAP for heading in _ALWAYS[1:] if heading in needed)
    places = [_shortened(row.place, width - others) for row in rows]
    name = min(max((len(row.site) for row in rows), default=0), _MIN_NAME)
    room = width - others - max([name, *map(len, places)])
    shown, left_out = list(_ALWAYS), list[str]()
    for heading in _IF_THERE_IS_ROOM:
        fits = needed.get(heading, 0) + _GAP <= room
        (shown if fits else left_out).append(heading)
        room -= (needed.get(heading, 0) + _GAP) * fits
    active = needed["active in"] + max(min(room, natural - needed["active in"]), 0)
    room -= active - needed["active in"]
    for row, texts, place in zip(rows, cells, places, strict=True):
        texts["site"] = "\n".join([*_folded_name(row.site, name + room), *([place] if place else [])])
    headings = [heading for heading in needed if heading in shown]
    return _filled(rows, cells, headings, {"active in": active}), left_out if rows else []


def _filled(
    rows: Sequence[Row], cells: Sequence[dict[str, str]], headings: Sequence[str], widths: dict[str, int]
) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        right, width = heading in _RIGHT_ALIGNED, widths.get(heading)
        table.add_column(heading, justify="right" if right else "left", no_wrap=width is None, width=width)
    for row, texts in zip(rows, cells, strict=True):
        table.add_row(*(Text(texts[heading]) for heading in headings), style="dim" if row.is_inactive else None)
    return table


def _shortened(place: str, width: int) -> str:
    """Leave out the first folders of a path, so that it is not broken."""
    while len(place) > width and "/" in place:
        place = place.partition("/")[2]
    return place


def _folded_name(name: str, width: int) -> list[str]:
    """Break a dotted name before dots."""
    lines = [""]
    for part in re.findall(r"\.?[^.]*", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return [line[begin : begin + width] for line in lines for begin in range(0, max(len(line), 1), width)]
