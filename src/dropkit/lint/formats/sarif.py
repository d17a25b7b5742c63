"""The format `sarif`: a log for code scanning.

Source: OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0", 2020.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dropkit
from dropkit.diagnostics import Diagnostic, Fix, Severity
from dropkit.lint.engine.result import CheckResult, Note
from dropkit.lint.engine.rule_docs import page
from dropkit.lint.formats.escape import utf8
from dropkit.lint.formats.json import edit_record
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES, Default, Rule

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_RULES = tuple(rule for rule in RULES if rule.check_source is not None)
_INDEX = {rule.code: index for index, rule in enumerate(_RULES)}


def render(result: CheckResult, color: bool) -> str:
    """The log of one run, indented."""
    driver = {"name": "dropkit", "version": dropkit.__version__, "rules": [_rule(rule) for rule in _RULES]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": not result.notes,
                "toolExecutionNotifications": [_note(note) for note in result.notes],
            }
        ],
        "results": _results(result),
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    short, _, _ = rule.explanation.partition("\n")
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": short},
        "fullDescription": {"text": rule.explanation},
        "help": {"text": f"dropkit explain {rule.code}", "markdown": page(rule)},
        "defaultConfiguration": {"enabled": rule.default is Default.ON, "level": _LEVELS[rule.severity]},
    }


def _results(result: CheckResult) -> list[dict[str, Any]]:
    counts: Counter[tuple[str, ...]] = Counter()
    results: list[dict[str, Any]] = []
    for finding in result.findings:
        text = result.texts.get((finding.path, finding.cell))
        key = (finding.code, _uri(finding.path), _source(text, finding))
        results.append(_result(finding, text, _digest((*key, str(counts[key])))))
        counts[key] += 1
    return results


def _result(finding: Diagnostic, text: Text | None, fingerprint: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": _INDEX[finding.code],
        "level": _LEVELS[finding.severity],
        "message": {"text": utf8(finding.message)},
        "locations": [_location(finding)],
        "partialFingerprints": {"dropkit/v1": fingerprint},
    }
    # Edits of a notebook are left out: they count in its code, not in the JSON of the file.
    if finding.fix is not None and finding.cell is None and text is not None:
        result["fixes"] = [_fix(finding, finding.fix, text)]
    return result


def _location(finding: Diagnostic) -> dict[str, Any]:
    span, physical = finding.span, {"artifactLocation": {"uri": _uri(finding.path)}}
    if finding.cell is not None:
        name = f"cell {finding.cell}"
        place = f"{name}, line {span.line}, column {span.column}"
        return {
            "physicalLocation": physical,
            "logicalLocations": [{"name": name, "fullyQualifiedName": place}],
            "message": {"text": place},
        }
    region = _region(span.line, span.column, span.end_line, span.end_column)
    return {"physicalLocation": {**physical, "region": region}}


def _region(line: int, column: int, end_line: int, end_column: int) -> dict[str, int]:
    return {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column}


def _fix(finding: Diagnostic, fix: Fix, text: Text) -> dict[str, Any]:
    replacements: list[dict[str, Any]] = []
    for edit in fix.edits:
        place = edit_record(text, edit)
        inserted = {"text": place.pop("text")}
        replacements.append({"deletedRegion": _region(**place), "insertedContent": inserted})
    change = {"artifactLocation": {"uri": _uri(finding.path)}, "replacements": replacements}
    kind = "safe" if fix.safe else "unsafe"
    return {"description": {"text": utf8(f"{fix.title} ({kind})")}, "artifactChanges": [change]}


def _note(note: Note) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(note.path)}}
    location: dict[str, Any] = {"physicalLocation": physical}
    if note.cell is not None:
        location["logicalLocations"] = [{"name": f"cell {note.cell}"}]
    elif note.line is not None:
        physical["region"] = {"startLine": note.line}
    return {"level": "error", "message": {"text": f"{note.kind}: {utf8(note.message)}"}, "locations": [location]}


def _uri(path: str) -> str:
    """The URI of a path. A relative path stays relative: code scanning resolves it from the root of the repository."""
    given = Path(path)
    try:
        # Bytes, because file names need not be UTF-8.
        return given.as_uri() if given.is_absolute() else quote(os.fsencode(given.as_posix()))
    except UnicodeEncodeError:
        return _uri(utf8(path))


def _source(text: Text | None, finding: Diagnostic) -> str:
    if text is None or finding.span.line > len(text.starts):
        return ""
    return text.line(finding.span.line).strip()


def _digest(parts: tuple[str, ...]) -> str:
    """A fingerprint that does not change when the line moves in its file."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:32]
