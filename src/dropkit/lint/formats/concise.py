"""The format `concise`: one line for each finding, which editors and terminals can jump to."""

from __future__ import annotations

from rich.text import Text as Line

from dropkit.diagnostics import Diagnostic
from dropkit.lint.engine.result import Outcome
from dropkit.lint.formats.lines import header, painted, remarks, summary


def render(outcome: Outcome, color: bool) -> str:
    """Findings, files that were passed over, and a summary."""
    return painted([*map(_line, outcome.findings), *remarks(outcome), *summary(outcome)], color)


def _line(finding: Diagnostic) -> Line:
    line = header(finding)
    if finding.fix is not None:
        line.append(" (safe fix)" if finding.fix.safe else " (unsafe fix)", "dim")
    return line
