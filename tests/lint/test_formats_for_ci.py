"""The formats github and sarif, and file names that are not UTF-8."""

import json
import os
import re

from helpers.findings import RULE, result_with, shown

from dropkit.diagnostics import Diagnostic, Severity, Span
from dropkit.lint.engine.result import CheckResult, Note
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES


def unescaped(value):
    for escape, character in [("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")]:
        value = value.replace(escape, character)
    return value


def commands(printed):
    """Read workflow commands as the runner does."""
    for line in printed.splitlines():
        _, head, message = line.split("::", 2)
        name, _, listed = head.partition(" ")
        properties = dict(pair.split("=", 1) for pair in listed.split(","))
        yield name, {key: unescaped(value) for key, value in properties.items()}, unescaped(message)


def test_github_commands_can_be_parsed_back():
    """Characters that end a property or a line are escaped."""
    note = Note("b.py", "50%: line 3,\r\nline 4")

    found, noted = commands(shown("github", result_with(path="a,b:100%.py", notes=(note,))))

    place = {"line": "5", "col": "17", "endLine": "5", "endColumn": "29"}
    assert found == ("error", {"file": "a,b:100%.py", **place, "title": RULE.code}, RULE.message)
    assert noted == ("error", {"file": "b.py", "title": "not checked"}, note.message)


def test_github_gives_no_columns_over_several_lines_and_no_lines_in_notebooks():
    """GitHub refuses columns of different lines; lines of a cell are not lines of the file."""
    wide = next(commands(shown("github", result_with(needle="F.dropout(\n\t\tx,\n\t)", severity=Severity.WARNING))))
    cell = next(commands(shown("github", result_with(path="a.ipynb", cell=2, severity=Severity.INFO))))

    assert wide[:2] == ("warning", {"file": "model.py", "line": "6", "endLine": "8", "title": RULE.code})
    assert cell == ("notice", {"file": "a.ipynb", "title": RULE.code}, f"{RULE.message} (cell 2:5:17)")


def log(given):
    held = json.loads(shown("sarif", given))
    assert held["version"] == "2.1.0"
    (run,) = held["runs"]
    return run


def test_sarif_describes_every_rule():
    """In the order of RULES; a result points to its own."""
    run = log(result_with())
    rules = run["tool"]["driver"]["rules"]

    assert run["tool"]["driver"]["name"] == "dropkit"
    assert run["columnKind"] == "unicodeCodePoints"
    assert [rule["id"] for rule in rules] == [rule.code for rule in RULES if rule.check_source is not None]
    assert all(rule[key]["text"] for rule in rules for key in ("shortDescription", "fullDescription", "help"))
    assert {rule["defaultConfiguration"]["level"] for rule in rules} <= {"error", "warning", "note"}
    assert rules[run["results"][0]["ruleIndex"]]["id"] == run["results"][0]["ruleId"] == RULE.code


def test_sarif_places_a_result_and_its_fix():
    (result,) = log(result_with(path="my models/a#1.py"))["results"]
    region = {"startLine": 5, "startColumn": 17, "endLine": 5, "endColumn": 29}
    place = {"artifactLocation": {"uri": "my%20models/a%231.py"}}

    assert (result["level"], result["message"]) == ("error", {"text": RULE.message})
    assert result["locations"] == [{"physicalLocation": {**place, "region": region}}]
    (fix,) = result["fixes"]
    point = {"startLine": 5, "startColumn": 28, "endLine": 5, "endColumn": 28}
    replacement = {"deletedRegion": point, "insertedContent": {"text": ", 0.1"}}
    assert fix["artifactChanges"] == [{**place, "replacements": [replacement]}]
    assert fix["description"]["text"] == "Give a rate (safe)"


def test_sarif_names_the_cell_of_a_notebook():
    """Its lines are not lines of the file: there is neither a region nor a fix."""
    (result,) = log(result_with(path="a.ipynb", cell=2))["results"]
    (location,) = result["locations"]

    assert "region" not in location["physicalLocation"]
    assert location["logicalLocations"][0]["name"] == "cell 2"
    assert "fixes" not in result


def test_sarif_fingerprints_follow_the_line_and_tell_equal_lines_apart():
    def prints(source):
        text = Text(source.encode())
        spans = [text.position(match.start()) for match in re.finditer(rb"F", text.utf8)]
        findings = [Diagnostic(RULE.code, "m", Severity.ERROR, "a.py", Span(*at, at[0], at[1] + 1)) for at in spans]
        given = CheckResult(tuple(findings), files=1, texts={("a.py", None): text})
        return [result["partialFingerprints"]["dropkit/v1"] for result in log(given)["results"]]

    first, second = prints("F(x)\nF(x)\n")

    assert first != second
    assert prints("\n\n  F(x)\nF(x)\n") == [first, second]


def test_sarif_reports_notes():
    run = log(CheckResult(notes=(Note("/b.py", "gone", line=3),), files=1))
    (notification,) = run["invocations"][0]["toolExecutionNotifications"]

    assert run["results"] == []
    assert run["invocations"][0]["executionSuccessful"] is False
    assert (notification["level"], notification["message"]["text"]) == ("error", "not checked: gone")
    physical = {"artifactLocation": {"uri": "file:///b.py"}, "region": {"startLine": 3}}
    assert notification["locations"] == [{"physicalLocation": physical}]


def test_a_name_that_is_no_utf8_is_still_that_name():
    """As an address percent-encoded, byte by byte; elsewhere with the bytes spelt out."""
    path = os.fsdecode(b"caf\xe9.py")
    given = result_with(path=path)

    (result,) = log(given)["results"]

    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "caf%E9.py"
    assert shown("concise", given).startswith("caf\\udce9.py:5:17: ")
    assert json.loads(shown("json", given))[0]["path"] == "caf\\udce9.py"
