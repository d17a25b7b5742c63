"""The format `github`: workflow commands, which GitHub Actions shows as annotations of a pull request.

Source: docs.github.com, "Workflow commands for GitHub Actions"; the escapes are those of actions/toolkit.
"""

from __future__ import annotations

from dropkit.diagnostics import Diagnostic, Severity
from dropkit.lint.engine.result import CheckResult, Note
from dropkit.lint.formats.escape import printable

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(result: CheckResult, color: bool) -> str:
    """One command for each finding and each note."""
    return "".join([*map(_finding, result.findings), *map(_note, result.notes)])


def _finding(finding: Diagnostic) -> str:
    span, place, message = finding.span, {}, finding.message
    if finding.cell is not None:
        # GitHub counts lines in the JSON of the notebook, which are unknown here.
        message = f"{message} (cell {finding.cell}:{span.line}:{span.column})"
    elif span.line == span.end_line:
        place = {"line": span.line, "col": span.column, "endLine": span.end_line, "endColumn": span.end_column}
    else:
        # GitHub rejects columns where the lines differ.
        place = {"line": span.line, "endLine": span.end_line}
    return _command(_COMMANDS[finding.severity], message, {"file": finding.path, **place, "title": finding.code})


def _note(note: Note) -> str:
    # Lines of a cell are not lines of the file.
    place: dict[str, str | int] = {} if note.line is None or note.cell is not None else {"line": note.line}
    return _command("error", note.message, {"file": note.path, **place, "title": note.kind})


def _command(name: str, message: str, properties: dict[str, str | int]) -> str:
    listed = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items())
    return f"::{name} {listed}::{_data(message)}\n"


def _data(value: str) -> str:
    # GitHub shows escaped line ends; all other control characters are replaced.
    lines = ("%0A".join(map(printable, line.split("\n"))) for line in value.replace("%", "%25").split("\r"))
    return "%0D".join(lines)


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
