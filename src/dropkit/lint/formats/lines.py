"""Shared lines of the formats full and concise: header, notes and summary."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text as Line

from dropkit.diagnostics import Diagnostic, Severity
from dropkit.lint.engine.result import UNFIXED, UNREAD, CheckResult
from dropkit.lint.formats.escape import printable
from dropkit.report.units import counted


def to_text(lines: Iterable[Line], color: bool) -> str:
    """Render lines without wrapping, and without escape sequences unless `color`."""
    file = io.StringIO()
    console = Console(
        file=file,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        legacy_windows=False,
        width=1 << 16,
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    return file.getvalue()


def header(finding: Diagnostic) -> Line:
    """`path:line:column: CODE severity: message`."""
    return Line.assemble(
        (location(finding), "bold"),
        ": ",
        (finding.code, finding.severity.style),
        " ",
        (f"{finding.severity.value}: ", finding.severity.style),
        printable(finding.message),
    )


def location(finding: Diagnostic) -> str:
    """`path:line:column`, or `path:cell 3:line:column` in a notebook."""
    cell = "" if finding.cell is None else f"cell {finding.cell}:"
    return f"{_shown(finding.path)}:{cell}{finding.span.line}:{finding.span.column}"


def _shown(path: str) -> str:
    """A path for the beginning of a line, where GitHub Actions would read `::error::x.py` as a command."""
    return f"./{printable(path)}" if path.lstrip().startswith("::") else printable(path)


def notes(result: CheckResult) -> list[Line]:
    """One line for each file, or cell of a notebook, that could not be read or fixed."""
    return [
        Line.assemble((_shown(note.path), "bold"), f": {note.kind}: ", (printable(note.message), "dim"))
        for note in result.notes
    ]


def summary(result: CheckResult) -> list[Line]:
    """The numbers of findings that were fixed, that are left and that can be fixed, and of files with notes."""
    lines = [*_fixed(result), _found(result)]
    if result.fixable:
        lines.append(Line(f"{result.fixable} fixable with --fix."))
    if result.unsafely_fixable:
        more = " more" if result.fixable else ""
        lines.append(Line(f"{result.unsafely_fixable}{more} fixable with --fix --unsafe-fixes (review the changes)."))
    return [*lines, *_failures(result)]


def _found(result: CheckResult) -> Line:
    files = counted(result.files, "file")
    if not result.findings:
        style = "" if result.notes else "green"
        return Line(f"No dropout misuse {'left' if result.fixed else 'found'} in {files}.", style)
    counts = Counter(finding.severity for finding in result.findings)
    listed = [counted(counts[severity], _NOUNS[severity]) for severity in Severity if counts[severity]]
    return Line(f"Found {_joined(listed)} in {files}.", "bold")


def _failures(result: CheckResult) -> list[Line]:
    """The numbers of files and cells that were not fixed or not checked."""
    unfixed = {note.path for note in result.notes if note.kind == UNFIXED}
    lines = [f"Not fixed: {counted(len(unfixed), 'file')}."] if unfixed else []
    files = {note.path for note in result.notes if note.kind == UNREAD and note.cell is None}
    unread = [counted(len(files), "file")] if files else []
    cells = [note.path for note in result.notes if note.cell is not None]
    if cells:
        unread.append(f"{counted(len(cells), 'cell')} of {counted(len(set(cells)), 'notebook')}")
    if unread:
        lines.append(f"Not checked: {_joined(unread)}.")
    return [Line(line, "bold yellow") for line in lines]


def _fixed(result: CheckResult) -> list[Line]:
    if not result.fixed:
        return []
    codes = Counter(finding.code for finding in result.fixed)
    lines = [
        Line(f"Fixed {len(result.fixed)}: " + ", ".join(f"{n} x {code}" for code, n in sorted(codes.items())) + ".")
    ]
    changed = [finding for finding in result.fixed if finding.fix is not None and finding.fix.changes_training]
    if changed:
        listed = ", ".join(f"{finding.code} at {location(finding)}" for finding in changed)
        verb = "changes" if len(changed) == 1 else "change"
        lines.append(Line(f"{len(changed)} of them {verb} training behaviour: {listed}.", "yellow"))
    return lines


_NOUNS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "info message"}


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
