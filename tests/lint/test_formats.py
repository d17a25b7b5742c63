"""What `dropkit check` prints, in each format, for given findings."""

import json
import os
import re
import subprocess
import sys

import pytest
from helpers.findings import RULE, SOURCE, finding, result_with, shown
from helpers.lint import BAD, GOOD, dropkit
from rich.cells import cell_len

from dropkit.diagnostics import Severity
from dropkit.lint.engine.result import UNFIXED, CheckResult, Note
from dropkit.lint.formats import FORMATS
from dropkit.lint.semantic.source_text import Text

ESCAPE = "\x1b"


def carets(printed):
    """The text above the carets, by terminal cells."""
    lines = printed.splitlines()
    at = next(index for index, line in enumerate(lines) if set(line.partition("| ")[2]) == {" ", "^"})
    before, width = cell_len(lines[at].rstrip("^")), lines[at].count("^")
    cells = [character for character in lines[at - 1] for _ in range(cell_len(character))]
    return "".join(cells[before : before + width])


def test_full_shows_location_source_fix_and_the_command_to_read_more():
    """Tabs and characters of two cells are counted as a terminal shows them; blank lines at the edge are left out."""
    assert (
        shown("full", result_with())
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
    printed = shown("full", result_with(needle="F.dropout(\n\t\tx,\n\t)"))

    assert carets(printed) == "F.dropout("
    assert "7 |         x,\n" in printed


@pytest.mark.parametrize("before", [0, 90, 130, 5000])
def test_full_cuts_long_lines_around_the_carets(before):
    source = f"{'a' * before}; F.dropout(x); {'b' * 5000}\n"

    printed = shown("full", result_with(source))

    assert carets(printed) == "F.dropout(x)"
    assert max(map(len, printed.splitlines())) < 130
    assert printed.count("…") == (1 if before < 100 else 2)


def test_full_cuts_a_finding_that_is_itself_too_long():
    needle = f"F.dropout({'x' * 500})"

    printed = shown("full", result_with(f"{'a' * 200}; {needle}\n", needle))

    assert needle.startswith(carets(printed))
    assert len(carets(printed)) > 80


def test_full_replaces_control_characters():
    """A file cannot move the cursor, colour the terminal or turn the direction of reading."""
    printed = shown("full", result_with("'\x1b[2J\x0c\u202e'; F.dropout(x)\n", path="a\x1b.py"))

    assert carets(printed) == "F.dropout(x)"
    assert not set("\x1b\x0c\u202e") & set(printed)


@pytest.mark.parametrize("name", ["full", "concise"])
def test_a_notebook_is_named_with_its_cell(name):
    printed = shown(name, result_with("F.dropout(x)\n", path="a.ipynb", cell=3))

    assert printed.startswith(f"a.ipynb:cell 3:1:1: {RULE.code} error: ")


@pytest.mark.parametrize("name", ["full", "concise"])
def test_notes_follow_the_findings(name):
    printed = shown(name, result_with(notes=(Note("b.py", "line 3: invalid syntax"),)))

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

    plain, colored = shown(name, result_with()), shown(name, result_with(), color=True)

    assert ESCAPE not in plain
    assert ESCAPE in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain


@pytest.mark.parametrize("name", ["json", "jsonl", "sarif", "github"])
def test_formats_for_programs_have_no_colours(name):
    assert shown(name, result_with(), color=True) == shown(name, result_with())
    assert ESCAPE not in shown(name, result_with(), color=True)


def test_json_says_all_that_a_finding_says():
    """A file that was not read is an object with the same keys."""
    assert json.loads(shown("json", result_with(notes=(Note("b.ipynb", "cell 2:3: gone", cell=2, line=3),)))) == [
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
    """Edits count in the joined cells, so only title and safety are given."""
    (held,) = json.loads(shown("json", result_with("F.dropout(x)\n", path="a.ipynb", cell=3)))

    assert (held["cell"], held["line"]) == (3, 1)
    assert (held["fix"]["title"], held["fix"]["edits"]) == ("Give a rate", None)


def test_jsonl_has_one_json_object_per_line():
    text = Text(SOURCE.encode())
    findings = (finding(text, "F.dropout(x)"), finding(text, "F.dropout(\n", fixed=False))
    given = CheckResult(findings, files=1, texts={("model.py", None): text})

    lines = shown("jsonl", given).splitlines()

    assert [json.loads(line) for line in lines] == json.loads(shown("json", given))


@pytest.mark.parametrize(("name", "nothing"), [("json", "[]\n"), ("jsonl", ""), ("github", "")])
def test_no_findings_give_an_empty_report(name, nothing):
    assert shown(name, CheckResult(files=1)) == nothing


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_shrank_since_is_still_reported(name):
    """Its text no longer has the line; nothing fails."""
    one = finding(Text(SOURCE.encode()), "F.dropout(x)")

    printed = shown(name, CheckResult((one,), files=1, texts={("model.py", None): Text(b"")}))

    assert RULE.message in printed


def test_showing_needs_no_torch():
    """All formats together import neither torch nor NumPy, nor rich."""
    code = (
        "import sys; from dropkit.lint.formats import FORMATS; from dropkit.lint.engine.result import CheckResult;"
        "[show(CheckResult(), True) for show in FORMATS.values()];"
        "print('rich' in sys.modules, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False", "False"]


ODD_NAMES = [
    os.fsdecode(b"caf\xe9.py"), "\x1b[2J.py", "a\nb.py", "a\r::error::b.py", "::error::a.py", " ::stop-commands::x.py",
    "[bold]a[/bold].py", "\u202ea.py", "a b%0A.py", "a\x07\x08\x7f\x9b.py", "\ud800.py",
]  # fmt: skip


@pytest.mark.parametrize("path", ODD_NAMES, ids=ascii)
@pytest.mark.parametrize("name", FORMATS)
def test_a_name_of_any_characters_is_shown_and_does_nothing(name, path):
    """The output is UTF-8, has no control characters or workflow commands from names, and can be parsed."""
    one = finding(Text(SOURCE.encode()), "F.dropout(x)", path=path)
    given = CheckResult((one,), (Note(path, f"it is {path}"),), 1, (one,), {(path, None): Text(SOURCE.encode())})

    printed = shown(name, given)

    assert printed.encode()
    assert not set("\x1b\x07\x08\x7f\x9b\r\u202e") & set(printed)
    begun = [line for line in printed.splitlines() if line.lstrip().startswith("::")]
    assert len(begun) == (2 if name == "github" else 0)
    if name in ("json", "sarif"):
        json.dumps(json.loads(printed), ensure_ascii=False).encode()


def test_what_was_not_read_is_counted_in_the_last_line():
    """The number of checked files leaves them out."""
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


def test_a_rule_is_explained_once(project):
    """The hint at its page follows its first finding; the summary is the last that a terminal shows."""
    (project / "net.py").write_text(BAD + "\n    def again(self, x):\n        return F.dropout(x, 0.5)\n")

    out = dropkit()[1]

    assert out.count("net.py:") == 2
    assert out.count("more: dropkit explain DRP101") == 1
    assert out.endswith("\n\nFound 2 errors in 1 file.\n2 fixable with --fix.\n")


def test_a_file_that_is_not_read_is_none_without_dropout(project):
    """A notebook that is none mentions no dropout; the file beside it has some."""
    (project / "net.py").write_text(GOOD)
    (project / "n.ipynb").write_text("{}")

    assert "No dropout misuse found in 1 file.\n" in dropkit()[1]


SUMMARIES = {
    "x = 1\n": "No dropout found in 1 file.\n",
    "import torch\n\ndef train(model):\n    model.eval()\n": "No dropout found in 1 file.\n",
    "import torch\nmask = torch.rand_like(torch.ones(3)) < 0.9\n": "No dropout misuse found in 1 file.\n",
    GOOD: "No dropout misuse found in 1 file.\n",
    None: "There was no file to check.\n",
}


@pytest.mark.parametrize(("source", "summary"), SUMMARIES.items(), ids=["other", "no dropout", "mask", "clean", "none"])
@pytest.mark.parametrize("options", [(), ("--no-cache",)], ids=["cache", "no cache"])
def test_the_summary_says_whether_there_was_any_dropout(project, source, summary, options):
    """A clean result of a project without dropout says nothing about dropout; a second run says the same."""
    (project / "net.py").unlink()
    if source is not None:
        (project / "net.py").write_text(source)

    assert [dropkit(*options)[1] for _ in range(2)] == [summary, summary]
