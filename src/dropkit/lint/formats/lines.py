"""Shared lines of the formats full and concise: header, notes and summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dropkit.diagnostics import Diagnostic, Severity
from dropkit.lint.engine.result import UNFIXED, UNREAD, CheckResult
from dropkit.lint.formats.escape import printable
from dropkit.report.units import counted

# A piece of text, or one and its style: words of `_CODES`. rich would do the same, but takes longer to import than a
# file takes to check.
Part = str | tuple[str, str]
Line = list[Part]
# Source: ECMA-48, "Control Functions for Coded Character Sets", 1991, 8.3.117 SGR.
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


def to_text(lines: Iterable[Line], color: bool) -> str:
    """Join lines, with escape sequences for their styles if `color`."""
    return "".join(f"{''.join(_shown_part(part, color) for part in line)}\n" for line in lines)


def _shown_part(part: Part, color: bool) -> str:
    text, style = (part, "") if isinstance(part, str) else part
    if not color or not style or not text:
        return text
    codes = ";".join(_CODES[word] for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"


def header(finding: Diagnostic) -> Line:
    """`path:line:column: CODE severity: message`."""
    style = finding.severity.style
    return [
        (location(finding), "bold"),
        ": ",
        (finding.code, style),
        " ",
        (f"{finding.severity.value}: ", style),
        printable(finding.message),
    ]


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
        [(_shown(note.path), "bold"), f": {note.kind}: ", (printable(note.message), "dim")] for note in result.notes
    ]


def summary(result: CheckResult) -> list[Line]:
    """The numbers of findings that were fixed, that are left and that can be fixed, and of files with notes."""
    lines = [*_fixed(result), _found(result)]
    if result.fixable:
        lines.append([f"{result.fixable} fixable with --fix."])
    if result.unsafely_fixable:
        more = " more" if result.fixable else ""
        lines.append([f"{result.unsafely_fixable}{more} fixable with --fix --unsafe-fixes (review the changes)."])
    return [*lines, *_failures(result)]


def _found(result: CheckResult) -> Line:
    files = counted(result.files, "file")
    if not result.findings and not result.files and not result.notes:
        return ["There was no file to check."]
    if not result.findings and 0 < result.files == result.without_dropout:
        return [f"No dropout found in {files}."]
    if not result.findings:
        style = "" if result.notes else "green"
        return [(f"No dropout misuse {'left' if result.fixed else 'found'} in {files}.", style)]
    counts = Counter(finding.severity for finding in result.findings)
    listed = [counted(counts[severity], _NOUNS[severity]) for severity in Severity if counts[severity]]
    return [(f"Found {_joined(listed)} in {files}.", "bold")]


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
    return [[(line, "bold yellow")] for line in lines]


def _fixed(result: CheckResult) -> list[Line]:
    if not result.fixed:
        return []
    codes = Counter(finding.code for finding in result.fixed)
    listed = ", ".join(f"{count} x {code}" for code, count in sorted(codes.items()))
    lines: list[Line] = [[f"Fixed {len(result.fixed)}: {listed}."]]
    changed = [finding for finding in result.fixed if finding.fix is not None and finding.fix.changes_training]
    if changed:
        listed = ", ".join(f"{finding.code} at {location(finding)}" for finding in changed)
        verb = "changes" if len(changed) == 1 else "change"
        lines.append([(f"{len(changed)} of them {verb} training behaviour: {listed}.", "yellow")])
    return lines


_NOUNS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "info message"}


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
