"""Lines that the formats for people, full and concise, have in common: place, message, remarks and summary."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text as Line

from dropkit.diagnostics import Diagnostic, Severity
from dropkit.lint.engine.result import UNFIXED, UNREAD, Outcome
from dropkit.lint.formats.escape import seen

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold blue"}


def painted(lines: Iterable[Line], color: bool) -> str:
    """The lines as text, with escape sequences only if `color`; never wrapped."""
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
        (place(finding), "bold"),
        ": ",
        (finding.code, STYLES[finding.severity]),
        " ",
        (f"{finding.severity.value}: ", STYLES[finding.severity]),
        seen(finding.message),
    )


def place(finding: Diagnostic) -> str:
    """`path:line:column`, or `path:cell 3:line:column` in a notebook."""
    cell = "" if finding.cell is None else f"cell {finding.cell}:"
    return f"{_named(finding.path)}:{cell}{finding.span.line}:{finding.span.column}"


def _named(path: str) -> str:
    """A path at the beginning of a line. GitHub Actions would take `::error::x.py` there for a command."""
    return f"./{seen(path)}" if path.lstrip().startswith("::") else seen(path)


def remarks(outcome: Outcome) -> list[Line]:
    """A line for each file, or cell of a notebook, that could not be read or fixed."""
    return [
        Line.assemble((_named(note.path), "bold"), f": {note.what}: ", (seen(note.message), "dim"))
        for note in outcome.notes
    ]


def summary(outcome: Outcome) -> list[Line]:
    """What was fixed, what was found, what can be fixed, and what could not be read or fixed."""
    lines = [*_mended(outcome), _found(outcome)]
    if outcome.fixable:
        lines.append(Line(f"{outcome.fixable} can be mended with --fix."))
    if outcome.unsafely_fixable:
        more = " more" if outcome.fixable else ""
        lines.append(Line(f"{outcome.unsafely_fixable}{more} can be mended with --fix --unsafe-fixes: read the diff."))
    return [*lines, *_left_out(outcome)]


def _found(outcome: Outcome) -> Line:
    files = _count(outcome.files, "file")
    if not outcome.findings:
        style = "" if outcome.notes else "green"
        return Line(f"No misuse of dropout {'left' if outcome.mended else 'found'} in {files}.", style)
    counts = Counter(finding.severity for finding in outcome.findings)
    listed = [_count(counts[severity], _NOUNS[severity]) for severity in Severity if counts[severity]]
    return Line(f"Found {_joined(listed)} in {files}.", "bold")


def _left_out(outcome: Outcome) -> list[Line]:
    """What is neither clean nor not, for it was not read."""
    cells = [note for note in outcome.notes if note.cell is not None]
    files = {note.path for note in outcome.notes if note.what == UNREAD and note.cell is None}
    unfixed = {note.path for note in outcome.notes if note.what == UNFIXED}
    unread = [
        *([_count(len(files), "file")] if files else []),
        *([f"{_count(len(cells), 'cell')} of {_count(len({one.path for one in cells}), 'notebook')}"] if cells else []),
    ]
    lines = [f"Not fixed: {_count(len(unfixed), 'file')}."] if unfixed else []
    return [Line(line, "bold yellow") for line in (*lines, *([f"Not checked: {_joined(unread)}."] if unread else []))]


def _mended(outcome: Outcome) -> list[Line]:
    if not outcome.mended:
        return []
    codes = Counter(finding.code for finding in outcome.mended)
    lines = [
        Line(f"Mended {len(outcome.mended)}: " + ", ".join(f"{n} x {code}" for code, n in sorted(codes.items())) + ".")
    ]
    changed = [finding for finding in outcome.mended if finding.fix is not None and finding.fix.changes_training]
    if changed:
        listed = ", ".join(f"{finding.code} at {place(finding)}" for finding in changed)
        verb = "changes" if len(changed) == 1 else "change"
        lines.append(Line(f"{len(changed)} of them {verb} training behaviour: {listed}.", "yellow"))
    return lines


_NOUNS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "remark"}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
