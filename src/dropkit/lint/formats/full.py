"""The format `full`: each finding with the lines around it and its fix, and once for each rule how to read more."""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.result import CheckResult
from dropkit.lint.formats.escape import printable
from dropkit.lint.formats.lines import Line, header, notes, summary, to_text
from dropkit.lint.semantic.source_text import Text

# Lines shown above and below a finding.
_CONTEXT = 2
# Longer lines are cut to this many characters.
_WIDTH = 120
_TAB = 4


def render(result: CheckResult, color: bool) -> str:
    """Findings, notes and a summary."""
    lines: list[Line] = []
    explained: set[str] = set()
    for finding in result.findings:
        lines += [header(finding), *_excerpt(result, finding), *_help(finding, finding.code not in explained), []]
        explained.add(finding.code)
    return to_text([*lines, *notes(result), *summary(result)], color)


def _help(finding: Diagnostic, explains: bool) -> Iterator[Line]:
    """What to do, and where a rule is explained, if `explains`."""
    fix = finding.fix
    if fix is not None:
        how = "safe, --fix" if fix.safe else "unsafe, --fix --unsafe-fixes"
        changes = "; changes training behaviour" if fix.changes_training else ""
        yield [("help: ", "bold cyan"), printable(fix.title), (f" ({how}{changes})", "dim")]
    if explains:
        yield [("more: ", "bold cyan"), f"dropkit explain {finding.code}"]


def _excerpt(result: CheckResult, finding: Diagnostic) -> Iterator[Line]:
    """Numbered lines around the finding, with carets under its part of its first line."""
    text = result.texts.get((finding.path, finding.cell))
    # The file may have changed since it was checked.
    if text is None or finding.span.line > len(text.starts):
        return
    first, last = _bounds(text, finding.span.line)
    gutter = len(str(last))
    yield [(f"{'':{gutter}} |", "blue")]
    for number in range(first, last + 1):
        edge = f"{number:>{gutter}} |"
        if number != finding.span.line:
            shown = _cut(_expanded(text.line(number)), 0, 0)[0].rstrip()
            yield [(f"{edge} ", "blue"), shown] if shown else [(edge, "blue")]
            continue
        shown, before, width = _marked(text, finding)
        yield [(f"{edge} ", "blue"), shown]
        yield [(f"{'':{gutter}} | ", "blue"), " " * before, ("^" * width, finding.severity.style)]
    yield [(f"{'':{gutter}} |", "blue")]


def _bounds(text: Text, line: int) -> tuple[int, int]:
    """The first and last line to show, without blank lines at either end."""
    first, last = max(1, line - _CONTEXT), min(len(text.starts), line + _CONTEXT)
    while first < line and not text.line(first).strip():
        first += 1
    while last > line and not text.line(last).strip():
        last -= 1
    return first, last


def _marked(text: Text, finding: Diagnostic) -> tuple[str, int, int]:
    """The finding's first line, and the position and number of its carets, in terminal cells."""
    line, span = text.line(finding.span.line), finding.span
    stop = span.end_column - 1 if span.end_line == span.line else len(line.rstrip())
    start = len(_expanded(line[: span.column - 1]))
    shown, start, end = _cut(_expanded(line), start, max(start + 1, len(_expanded(line[:stop]))))
    before = _cells(shown[:start])
    return shown, before, max(1, _cells(shown[:end]) - before)


def _cut(line: str, start: int, end: int) -> tuple[str, int, int]:
    """Cut `line` to `_WIDTH` characters around `start`; return it with the new `start` and `end`."""
    if len(line) <= _WIDTH:
        return line, start, end
    begin = 0 if end <= _WIDTH else max(0, start - _WIDTH // 4)
    shown = line[begin : begin + _WIDTH]
    left, right = "…" if begin else "", "…" if begin + _WIDTH < len(line) else ""
    shift = len(left) - begin
    return f"{left}{shown}{right}", start + shift, min(end, begin + len(shown)) + shift


def _expanded(line: str) -> str:
    """Expand tabs to multiples of `_TAB` cells, and replace unprintable characters."""
    shown, width = "", 0
    for index, part in enumerate(map(printable, line.split("\t"))):
        gap = " " * (_TAB - width % _TAB) if index else ""
        shown += gap + part
        width += len(gap) + _cells(part)
    return shown


def _cells(text: str) -> int:
    """The cells that a text takes in a terminal: most characters take one."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # imported here: most source is ASCII

    return cell_len(text)
