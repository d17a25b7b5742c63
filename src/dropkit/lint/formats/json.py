"""The format `json`: one array with an object for each finding and each note.

Lines and columns begin at 1, ends are exclusive. An object without a code is a note: a file or cell that was not read.
"""

from __future__ import annotations

import json
from typing import Any

from dropkit.diagnostics import Diagnostic, Edit, Severity
from dropkit.lint.engine.result import CheckResult, Note
from dropkit.lint.formats.escape import utf8
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

_NAMES = {rule.code: rule.name for rule in RULES}


def render(result: CheckResult, color: bool) -> str:
    """The array, indented by two spaces."""
    return json.dumps(records(result), indent=2) + "\n"


def records(result: CheckResult) -> list[dict[str, Any]]:
    """The findings and notes as JSON objects."""
    return [*(record(result, finding) for finding in result.findings), *map(_note, result.notes)]


def record(result: CheckResult, finding: Diagnostic) -> dict[str, Any]:
    """A finding as a JSON object. In a notebook, positions count in `cell`."""
    return {
        "code": finding.code,
        "name": _NAMES.get(finding.code),
        "message": utf8(finding.message),
        "severity": finding.severity.value,
        "path": utf8(finding.path),
        "cell": finding.cell,
        "line": finding.span.line,
        "column": finding.span.column,
        "end_line": finding.span.end_line,
        "end_column": finding.span.end_column,
        "fix": _fix(result, finding),
    }


def _note(note: Note) -> dict[str, Any]:
    return {
        "code": None,
        "name": note.kind.replace(" ", "-"),
        "message": f"{note.kind}: {utf8(note.message)}",
        "severity": Severity.ERROR.value,
        "path": utf8(note.path),
        "cell": note.cell,
        "line": note.line,
        "column": None,
        "end_line": None,
        "end_column": None,
        "fix": None,
    }


def _fix(result: CheckResult, finding: Diagnostic) -> dict[str, Any] | None:
    fix = finding.fix
    if fix is None:
        return None
    # Edits of a notebook are left out: they count in the joined text of its cells, which readers do not have.
    text = result.texts.get((finding.path, None))
    return {
        "title": utf8(fix.title),
        "safe": fix.safe,
        "changes_training": fix.changes_training,
        "edits": [edit_record(text, edit) for edit in fix.edits] if text is not None and finding.cell is None else None,
    }


def edit_record(text: Text, edit: Edit) -> dict[str, Any]:
    """An edit as a JSON object: the range is replaced by `text`."""
    line, column = text.position(edit.start)
    end_line, end_column = text.position(edit.end)
    return {"line": line, "column": column, "end_line": end_line, "end_column": end_column, "text": utf8(edit.text)}
