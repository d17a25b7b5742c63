"""What `dropkit check` prints, in each format, for findings that are given."""

import json
import os
import re
import subprocess
import sys

import pytest
from rich.cells import cell_len

from dropkit.diagnostics import Diagnostic, Edit, Fix, Severity, Span
from dropkit.lint.engine.result import UNFIXED, CheckResult, Note
from dropkit.lint.formats import FORMATS
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

SOURCE = """import torch.nn.functional as F


def forward(x):
\ty = "\N{SLIGHTLY SMILING FACE}日本"; x = F.dropout(x)
\tx = F.dropout(
\t\tx,
\t)
\treturn x
"""
RULE = RULES[0]
ESCAPE = "\x1b"


def finding(text, needle, path="model.py", cell=None, severity=Severity.ERROR, safe=True, fixed=True):
    """A finding that spans `needle`; its fix puts `, 0.1` before the last character."""
    start = text.utf8.index(needle.encode())
    end = start + len(needle.encode())
    edit = Edit(end - 1, end - 1, ", 0.1")
    fix = Fix("Give a rate", (edit,), safe=safe, changes_training=safe) if fixed else None
    span = Span(*text.position(start), *text.position(end))
    return Diagnostic(RULE.code, RULE.message, severity, path, span, fix, cell=cell)


def outcome(source=SOURCE, needle="F.dropout(x)", notes=(), fixed=(), **options):
    text = Text(source.encode())
    one = finding(text, needle, **options)
    return CheckResult((one,), notes, 3, fixed, {(one.path, one.cell): text})


def shown(name, given, color=False):
    return FORMATS[name](given, color)


def carets(printed):
    """What stands above the carets, by the cells that a terminal gives to each character."""
    lines = printed.splitlines()
    at = next(index for index, line in enumerate(lines) if set(line.partition("| ")[2]) == {" ", "^"})
    before, width = cell_len(lines[at].rstrip("^")), lines[at].count("^")
    cells = [character for character in lines[at - 1] for _ in range(cell_len(character))]
    return "".join(cells[before : before + width])


def test_full_shows_the_place_the_source_the_fix_and_where_to_read_more():
    """Tabs and characters of two cells are counted as a terminal shows them; blank lines at the edge are left out."""
    assert (
        shown("full", outcome())
        == f"""\
model.py:5:17: {RULE.code} error: {RULE.message}
  |
4 | def forward(x):
5 |     y = "\N{SLIGHTLY SMILING FACE}日本"; x = F.dropout(x)
  |                       ^^^^^^^^^^^^
6 |     x = F.dropout(
7 |         x,
  |
help: Give a rate (safe, --fix; changes training behaviour)
more: dropkit explain {RULE.code}

Found 1 error in 3 files.
1 fixable with --fix.
"""
    )


def test_full_underlines_the_first_of_several_lines():
    printed = shown("full", outcome(needle="F.dropout(\n\t\tx,\n\t)"))

    assert carets(printed) == "F.dropout("
    assert "7 |         x,\n" in printed


@pytest.mark.parametrize("before", [0, 90, 130, 5000])
def test_full_cuts_long_lines_around_the_carets(before):
    source = f"{'a' * before}; F.dropout(x); {'b' * 5000}\n"

    printed = shown("full", outcome(source))

    assert carets(printed) == "F.dropout(x)"
    assert max(map(len, printed.splitlines())) < 130
    assert printed.count("…") == (1 if before < 100 else 2)


def test_full_cuts_a_finding_that_is_itself_too_long():
    needle = f"F.dropout({'x' * 500})"

    printed = shown("full", outcome(f"{'a' * 200}; {needle}\n", needle))

    assert needle.startswith(carets(printed))
    assert len(carets(printed)) > 80


def test_full_shows_control_characters_instead_of_obeying_them():
    """A file cannot move the cursor, colour the terminal or turn the direction of reading."""
    printed = shown("full", outcome("'\x1b[2J\x0c\u202e'; F.dropout(x)\n", path="a\x1b.py"))

    assert carets(printed) == "F.dropout(x)"
    assert not set("\x1b\x0c\u202e") & set(printed)


@pytest.mark.parametrize("name", ["full", "concise"])
def test_a_notebook_is_named_with_its_cell(name):
    printed = shown(name, outcome("F.dropout(x)\n", path="a.ipynb", cell=3))

    assert printed.startswith(f"a.ipynb:cell 3:1:1: {RULE.code} error: ")


@pytest.mark.parametrize("name", ["full", "concise"])
def test_files_that_were_passed_over_stand_behind_the_findings(name):
    printed = shown(name, outcome(notes=(Note("b.py", "line 3: invalid syntax"),)))

    assert "\nb.py: not checked: line 3: invalid syntax\nFound 1 error in 3 files.\n" in printed


@pytest.mark.parametrize("name", ["full", "concise"])
def test_fixes_that_change_training_are_named(name):
    text = Text(SOURCE.encode())
    taken = (finding(text, "F.dropout(x)"), finding(text, "F.dropout(x)", safe=False))

    printed = shown(name, CheckResult(files=1, fixed=taken))

    assert printed == (
        f"Fixed 2: 2 x {RULE.code}.\n"
        f"1 of them changes training behaviour: {RULE.code} at model.py:5:17.\n"
        "No dropout misuse left in 1 file.\n"
    )


def test_concise_is_one_line_each():
    text = Text(SOURCE.encode())
    kinds = [{}, {"safe": False, "severity": Severity.WARNING}, {"fixed": False, "severity": Severity.INFO}]
    given = CheckResult(tuple(finding(text, "F.dropout(x)", **kind) for kind in kinds), files=1)

    assert shown("concise", given) == (
        f"model.py:5:17: {RULE.code} error: {RULE.message} (safe fix)\n"
        f"model.py:5:17: {RULE.code} warning: {RULE.message} (unsafe fix)\n"
        f"model.py:5:17: {RULE.code} info: {RULE.message}\n"
        "Found 1 error, 1 warning and 1 info message in 1 file.\n"
        "1 fixable with --fix.\n"
        "1 more fixable with --fix --unsafe-fixes (review the changes).\n"
    )


@pytest.mark.parametrize("name", ["full", "concise"])
def test_colours_change_nothing_but_colours(name, monkeypatch):
    """With colour the same characters stand between the escape sequences, whatever the environment says."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")

    plain, colored = shown(name, outcome()), shown(name, outcome(), color=True)

    assert ESCAPE not in plain
    assert ESCAPE in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain


@pytest.mark.parametrize("name", ["json", "jsonl", "sarif", "github"])
def test_formats_for_programs_have_no_colours(name):
    assert shown(name, outcome(), color=True) == shown(name, outcome())
    assert ESCAPE not in shown(name, outcome(), color=True)


def test_json_says_all_that_a_finding_says():
    """And of what was not read, by the same names, that it was not: it is neither clean nor left out."""
    assert json.loads(shown("json", outcome(notes=(Note("b.ipynb", "cell 2:3: gone", cell=2, line=3),)))) == [
        {
            "code": RULE.code,
            "name": RULE.name,
            "message": RULE.message,
            "severity": "error",
            "path": "model.py",
            "cell": None,
            "line": 5,
            "column": 17,
            "end_line": 5,
            "end_column": 29,
            "fix": {
                "title": "Give a rate",
                "safe": True,
                "changes_training": True,
                "edits": [{"line": 5, "column": 28, "end_line": 5, "end_column": 28, "text": ", 0.1"}],
            },
        },
        {
            "code": None,
            "name": "not-checked",
            "message": "not checked: cell 2:3: gone",
            "severity": "error",
            "path": "b.ipynb",
            "cell": 2,
            "line": 3,
            "column": None,
            "end_line": None,
            "end_column": None,
            "fix": None,
        },
    ]


def test_json_gives_no_edits_of_notebooks():
    """They count in all cells together; title and safety are still said."""
    (held,) = json.loads(shown("json", outcome("F.dropout(x)\n", path="a.ipynb", cell=3)))

    assert (held["cell"], held["line"]) == (3, 1)
    assert (held["fix"]["title"], held["fix"]["edits"]) == ("Give a rate", None)


def test_jsonl_is_json_a_line_each():
    text = Text(SOURCE.encode())
    findings = (finding(text, "F.dropout(x)"), finding(text, "F.dropout(\n", fixed=False))
    given = CheckResult(findings, files=1, texts={("model.py", None): text})

    lines = shown("jsonl", given).splitlines()

    assert [json.loads(line) for line in lines] == json.loads(shown("json", given))


@pytest.mark.parametrize(("name", "nothing"), [("json", "[]\n"), ("jsonl", ""), ("github", "")])
def test_nothing_found_is_nothing_said(name, nothing):
    assert shown(name, CheckResult(files=1)) == nothing


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


def test_github_reads_back_what_was_said():
    """Characters that end a property or a line are escaped."""
    note = Note("b.py", "50%: line 3,\r\nline 4")

    found, noted = commands(shown("github", outcome(path="a,b:100%.py", notes=(note,))))

    place = {"line": "5", "col": "17", "endLine": "5", "endColumn": "29"}
    assert found == ("error", {"file": "a,b:100%.py", **place, "title": RULE.code}, RULE.message)
    assert noted == ("error", {"file": "b.py", "title": "not checked"}, note.message)


def test_github_gives_no_columns_over_several_lines_and_no_lines_in_notebooks():
    """GitHub refuses columns of different lines; lines of a cell are not lines of the file."""
    wide = next(commands(shown("github", outcome(needle="F.dropout(\n\t\tx,\n\t)", severity=Severity.WARNING))))
    cell = next(commands(shown("github", outcome(path="a.ipynb", cell=2, severity=Severity.INFO))))

    assert wide[:2] == ("warning", {"file": "model.py", "line": "6", "endLine": "8", "title": RULE.code})
    assert cell == ("notice", {"file": "a.ipynb", "title": RULE.code}, f"{RULE.message} (cell 2:5:17)")


def log(given):
    held = json.loads(shown("sarif", given))
    assert held["version"] == "2.1.0"
    (run,) = held["runs"]
    return run


def test_sarif_describes_every_rule():
    """In the order of RULES; a result points to its own."""
    run = log(outcome())
    rules = run["tool"]["driver"]["rules"]

    assert run["tool"]["driver"]["name"] == "dropkit"
    assert run["columnKind"] == "unicodeCodePoints"
    assert [rule["id"] for rule in rules] == [rule.code for rule in RULES if rule.check_source is not None]
    assert all(rule[key]["text"] for rule in rules for key in ("shortDescription", "fullDescription", "help"))
    assert {rule["defaultConfiguration"]["level"] for rule in rules} <= {"error", "warning", "note"}
    assert rules[run["results"][0]["ruleIndex"]]["id"] == run["results"][0]["ruleId"] == RULE.code


def test_sarif_places_a_result_and_its_fix():
    (result,) = log(outcome(path="my models/a#1.py"))["results"]
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
    (result,) = log(outcome(path="a.ipynb", cell=2))["results"]
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


def test_sarif_reports_files_that_were_passed_over():
    run = log(CheckResult(notes=(Note("/b.py", "gone", line=3),), files=1))
    (notification,) = run["invocations"][0]["toolExecutionNotifications"]

    assert run["results"] == []
    assert run["invocations"][0]["executionSuccessful"] is False
    assert (notification["level"], notification["message"]["text"]) == ("error", "not checked: gone")
    physical = {"artifactLocation": {"uri": "file:///b.py"}, "region": {"startLine": 3}}
    assert notification["locations"] == [{"physicalLocation": physical}]


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_shrank_since_is_still_reported(name):
    """Its text no longer has the line; nothing fails."""
    one = finding(Text(SOURCE.encode()), "F.dropout(x)")

    printed = shown(name, CheckResult((one,), files=1, texts={("model.py", None): Text(b"")}))

    assert RULE.message in printed


def test_showing_needs_no_torch():
    """All formats together import neither torch nor NumPy; what is for programs does not import rich."""
    code = (
        "import sys; from dropkit.lint.formats import FORMATS; from dropkit.lint.engine.result import CheckResult;"
        "[FORMATS[name](CheckResult(), False) for name in ('json', 'jsonl', 'sarif', 'github')];"
        "print('rich' in sys.modules);"
        "[show(CheckResult(), True) for show in FORMATS.values()];"
        "print('rich' in sys.modules, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "True", "False", "False"]


ODD_NAMES = [
    os.fsdecode(b"caf\xe9.py"), "\x1b[2J.py", "a\nb.py", "a\r::error::b.py", "::error::a.py", " ::stop-commands::x.py",
    "[bold]a[/bold].py", "\u202ea.py", "a b%0A.py", "a\x07\x08\x7f\x9b.py", "\ud800.py",
]  # fmt: skip


@pytest.mark.parametrize("path", ODD_NAMES, ids=ascii)
@pytest.mark.parametrize("name", FORMATS)
def test_a_name_of_any_characters_is_shown_and_does_nothing(name, path):
    """What is printed is UTF-8, moves no cursor, begins no workflow command of its own, and can be read back."""
    one = finding(Text(SOURCE.encode()), "F.dropout(x)", path=path)
    given = CheckResult((one,), (Note(path, f"it is {path}"),), 1, (one,), {(path, None): Text(SOURCE.encode())})

    printed = shown(name, given)

    assert printed.encode()
    assert not set("\x1b\x07\x08\x7f\x9b\r\u202e") & set(printed)
    begun = [line for line in printed.splitlines() if line.lstrip().startswith("::")]
    assert len(begun) == (2 if name == "github" else 0)
    if name in ("json", "sarif"):
        json.dumps(json.loads(printed), ensure_ascii=False).encode()


def test_a_name_that_is_no_utf8_is_still_that_name():
    """As an address percent-encoded, byte by byte; elsewhere with the bytes spelt out."""
    path = os.fsdecode(b"caf\xe9.py")
    given = outcome(path=path)

    (result,) = log(given)["results"]

    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "caf%E9.py"
    assert shown("concise", given).startswith("caf\\udce9.py:5:17: ")
    assert json.loads(shown("json", given))[0]["path"] == "caf\\udce9.py"


def test_what_was_not_read_is_counted_in_the_last_line():
    """And the files that were are not said to be all."""
    notes = (
        Note("a.py", "gone"),
        Note("b.ipynb", "m", cell=1),
        Note("b.ipynb", "m", cell=2),
        Note("c.py", "m", kind=UNFIXED),
    )

    printed = shown("concise", CheckResult(notes=notes, files=1))

    assert printed.endswith(
        "No dropout misuse found in 1 file.\nNot fixed: 1 file.\nNot checked: 1 file and 2 cells of 1 notebook.\n"
    )
