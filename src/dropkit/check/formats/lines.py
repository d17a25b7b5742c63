"""Lines that the formats for people, full and concise, have in common: place, message, remarks and summary."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text as Line

from dropkit.check.outcome import Outcome
from dropkit.facts.finding import Finding, Severity

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold blue"}

# Control characters would move the cursor, marks of direction would show code in another order than it runs in.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


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


def seen(text: str) -> str:
    """`text` with a replacement character for each one that a terminal would obey instead of show."""
    return _UNSEEN.sub("\ufffd", text)


def header(finding: Finding) -> Line:
    """`path:line:column: CODE severity: message`."""
    return Line.assemble(
        (place(finding), "bold"),
        ": ",
        (finding.code, STYLES[finding.severity]),
        " ",
        (f"{finding.severity.value}: ", STYLES[finding.severity]),
        seen(finding.message),
    )


def place(finding: Finding) -> str:
    """`path:line:column`, or `path:cell 3:line:column` in a notebook."""
    cell = "" if finding.cell is None else f"cell {finding.cell}:"
    return f"{seen(finding.path)}:{cell}{finding.span.line}:{finding.span.column}"


def remarks(outcome: Outcome) -> list[Line]:
    """A line for each file that was passed over."""
    return [
        Line.assemble((seen(note.path), "bold"), ": not checked: ", (seen(note.message), "dim"))
        for note in outcome.notes
    ]


def summary(outcome: Outcome) -> list[Line]:
    """What was mended, what was found and what can be mended."""
    lines = [*_mended(outcome), _found(outcome)]
    if outcome.fixable:
        lines.append(Line(f"{outcome.fixable} can be mended with --fix."))
    if outcome.unsafely_fixable:
        more = " more" if outcome.fixable else ""
        lines.append(Line(f"{outcome.unsafely_fixable}{more} can be mended with --fix --unsafe-fixes: read the diff."))
    return lines


def _found(outcome: Outcome) -> Line:
    files = _count(outcome.files, "file")
    if not outcome.findings:
        return Line(f"No misuse of dropout {'left' if outcome.mended else 'found'} in {files}.", "green")
    counts = Counter(finding.severity for finding in outcome.findings)
    listed = [_count(counts[severity], _NOUNS[severity]) for severity in Severity if counts[severity]]
    return Line(f"Found {_joined(listed)} in {files}.", "bold")


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
