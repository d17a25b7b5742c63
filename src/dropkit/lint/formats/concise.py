"""The format `concise`: one line for each finding, `path:line:column: CODE severity: message`."""

from __future__ import annotations

from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.result import CheckResult
from dropkit.lint.formats.lines import Line, header, notes, summary, to_text


def render(result: CheckResult, color: bool) -> str:
    """Findings, notes and a summary."""
    return to_text([*map(_line, result.findings), *notes(result), *summary(result)], color)


def _line(finding: Diagnostic) -> Line:
    line = header(finding)
    if finding.fix is not None:
        line.append((" (safe fix)" if finding.fix.safe else " (unsafe fix)", "dim"))
    return line
