"""The format `github`: workflow commands, which GitHub Actions shows beside the line in a pull request.

Source: docs.github.com, "Workflow commands for GitHub Actions"; the escapes are those of actions/toolkit.
"""

from __future__ import annotations

from dropkit.diagnostics import Diagnostic, Severity
from dropkit.lint.engine.result import Note, Outcome
from dropkit.lint.formats.escape import seen

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(outcome: Outcome, color: bool) -> str:
    """One command for each finding, and for each file or cell that could not be read or fixed."""
    return "".join([*map(_finding, outcome.findings), *map(_note, outcome.notes)])


def _finding(finding: Diagnostic) -> str:
    span, place, message = finding.span, {}, finding.message
    if finding.cell is not None:
        # Lines of the notebook's own JSON are not known here.
        message = f"{message} (cell {finding.cell}:{span.line}:{span.column})"
    elif span.line == span.end_line:
        place = {"line": span.line, "col": span.column, "endLine": span.end_line, "endColumn": span.end_column}
    else:
        # Columns are refused where the lines differ.
        place = {"line": span.line, "endLine": span.end_line}
    return _command(_COMMANDS[finding.severity], message, {"file": finding.path, **place, "title": finding.code})


def _note(note: Note) -> str:
    # Lines of a cell are not lines of the file.
    place: dict[str, str | int] = {} if note.line is None or note.cell is not None else {"line": note.line}
    return _command("error", note.message, {"file": note.path, **place, "title": note.what})


def _command(name: str, message: str, properties: dict[str, str | int]) -> str:
    listed = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items())
    return f"::{name} {listed}::{_data(message)}\n"


def _data(value: str) -> str:
    # Line ends are for GitHub to show; other control characters are for nobody.
    lines = ("%0A".join(map(seen, line.split("\n"))) for line in value.replace("%", "%25").split("\r"))
    return "%0D".join(lines)


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
