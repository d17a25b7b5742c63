"""`# noqa` comments without effect are found and removed; what is used, or may be used by others, is left alone."""

import json

import pytest
from helpers.lint import BAD, GOOD, LINE, codes, dropkit, notebook

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.fixing import fix_bytes
from dropkit.lint.engine.project import check_source

HEADS = ["# ruff: noqa", "# flake8: noqa", "#RUFF:NOQA", "# why: # ruff: noqa", "    # ruff: noqa"]
CODED_HEADS = ["# ruff: noqa: DRP101", "# ruff: noqa: E501, DRP1", "# flake8: noqa: DRP", "# ruff:noqa:drp101"]


def check(source, **settings):
    return check_source("net.py", source.encode(), Config(**settings))


@pytest.mark.parametrize("code", ["DRP", "DRP1", "DRP10", "DRP101", "drp1", "E501, DRP1"])
def test_a_prefix_silences_all_codes_that_begin_with_it(code):
    """`DRP1` stands for every rule of its family, on a line and in a file."""
    assert codes(check(BAD.replace(LINE, f"{LINE}  # noqa: {code}"))) == []
    assert codes(check(BAD.replace(LINE, f"{LINE}  # dropkit: ignore[{code}]"))) == []
    assert codes(check(f"# ruff: noqa: {code}\n{BAD}")) == []


@pytest.mark.parametrize("code", ["D", "D101", "DR", "RP1", "DRP2", "P1", "ROP101"])
def test_the_prefix_of_another_linter_does_not(code):
    """Only codes of dropkit are prefixes of its codes."""
    assert "DRP101" in codes(check(f"# ruff: noqa: X100, {code}1\n{BAD}"))
    assert "DRP101" in codes(check(BAD.replace(LINE, f"{LINE}  # noqa: {code}1")))


@pytest.mark.parametrize("head", [*HEADS, *CODED_HEADS])
def test_a_comment_for_the_file_is_honoured_wherever_it_stands(head):
    """ruff's and flake8's comments for a file silence all of it, from a line of their own."""
    assert codes(check(f"{head.lstrip()}\n{BAD}")) == []
    assert codes(check(f"{BAD}{head}\n")) == []


@pytest.mark.parametrize("head", ["# ruff: noqa: E501", "# ruff: noqa: because", "# ruff: noqable", "'# ruff: noqa'"])
def test_other_comments_for_the_file_silence_nothing(head):
    assert codes(check(f"{head}\n{BAD}")) == ["DRP101"]


def test_a_comment_for_the_file_must_have_its_own_line():
    """Behind code, ruff ignores it."""
    assert codes(check(BAD.replace(LINE, f"{LINE}  # ruff: noqa"))) == ["DRP101"]


# Comment behind a line with no misuse -> what is left of it.
UNUSED = {
    "# noqa: DRP101": "",
    "#noqa:DRP101": "",
    "# NOQA: drp101": "",
    "# noqa: DRP999": "",
    "# noqa: DRP": "",
    "# noqa: DRP1,DRP203": "",
    "# noqa: E501, DRP101": "  # noqa: E501",
    "# noqa: DRP101 E501": "  # noqa: E501",
    "# noqa:E501,DRP101,W291": "  # noqa:E501, W291",
    "# noqa: DRP101 - as in the paper": "  # as in the paper",
    "# the rate  # noqa: DRP101": "  # the rate",
    "# noqa: DRP101  # the rate": "  # the rate",
    "# über # noqa: DRP101": "  # über",
    "# noqa: E501 # noqa: DRP101": "  # noqa: E501",
}


@pytest.mark.parametrize(("comment", "left"), UNUSED.items(), ids=UNUSED)
def test_an_unused_code_is_reported_and_removed(comment, left):
    """The fix is safe, keeps the codes of other linters and other words, and then finds nothing to do."""
    source = GOOD.rstrip("\n") + f"  {comment}\n"
    findings = check(source).findings

    fixed, done = fix_bytes(source.encode(), findings, Config(), unsafe=False)

    assert codes(check(source)) == ["DRP001"]
    assert fixed.decode() == GOOD.rstrip("\n") + left + "\n"
    assert len(done) == 1
    assert codes(check(fixed.decode())) == []


USED = {
    "used": BAD.replace(LINE, f"{LINE}  # noqa: DRP101"),
    "used by its prefix": BAD.replace(LINE, f"{LINE}  # noqa: DRP1"),
    "used on the last line": BAD.replace("0.5)", "\n            0.5)  # noqa: DRP101"),
    "without codes": GOOD.replace(")\n", ")  # noqa\n"),
    "of another linter": GOOD.replace(")\n", ")  # noqa: E501, D101\n"),
    "of dropkit's own": GOOD.replace(")\n", ")  # dropkit: ignore[DRP101]\n"),
    "of an audit alone": GOOD.replace(")\n", ")  # noqa: DRP206\n"),
    "of unreadable files": GOOD.replace(")\n", ")  # noqa: DRP000\n"),
    "in a string": GOOD + "text = '# noqa: DRP101'\n",
    "for the file": f"# ruff: noqa: DRP101\n{BAD}",
    "of a rule that is off": "# ruff: noqa: DRP407\nfrom torch import nn\n"
    "net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.BatchNorm1d(8), nn.Linear(8, 8))\n",
    "excused itself": GOOD.replace(")\n", ")  # noqa: DRP101, DRP001\n"),
    "excused in the file": f"# ruff: noqa\n{GOOD}".replace(")\n", ")  # noqa: DRP101\n"),
}


@pytest.mark.parametrize("source", USED.values(), ids=USED)
def test_a_comment_that_silences_something_or_may_is_not_reported(source):
    assert codes(check(source)) == []


def test_a_comment_for_the_file_that_silences_nothing_loses_its_line():
    source = f"# ruff: noqa: DRP101\n# flake8: noqa: E501\n{GOOD}"
    findings = check(source).findings

    assert codes(check(source)) == ["DRP001"]
    assert fix_bytes(source.encode(), findings, Config(), unsafe=False)[0].decode() == f"# flake8: noqa: E501\n{GOOD}"


def test_a_file_without_dropout_is_read_for_the_comment():
    """It has none of the words that other rules look for."""
    assert codes(check("x = 1  # noqa: DRP101\n")) == ["DRP001"]
    assert codes(check_source("n.ipynb", notebook(("code", "x = 1  # noqa: DRP101")), Config())) == ["DRP001"]


def test_the_rule_can_be_ignored_and_needs_comments_that_count():
    source = "x = 1  # noqa: DRP101\n"

    assert codes(check(source, ignore=("DRP001",))) == codes(check(source, respect_noqa=False)) == []


def test_a_notebook_is_fixed_in_its_cell(project):
    """The other cells, and the rest of the JSON, stay as they are."""
    before = notebook(("code", GOOD), ("markdown", "x"), ("code", "%time x\ny = 1  # noqa: DRP101, E501"))
    (project / "net.py").unlink()
    (project / "n.ipynb").write_bytes(before)

    assert dropkit("--fix")[0] == 0
    assert (project / "n.ipynb").read_bytes() == before.replace(b"DRP101, E501", b"E501")


def test_a_cell_that_cannot_be_read_may_be_what_a_comment_is_for():
    cells = [("code", "class Net(:"), ("code", GOOD.replace(")\n", ")  # noqa: DRP101\n"))]

    assert codes(check_source("n.ipynb", notebook(*cells), Config())) == []


def test_add_noqa_writes_no_comment_about_a_comment(project):
    """Findings are silenced; the comment without effect is listed."""
    (project / "net.py").write_text(BAD + "x = 1  # noqa: DRP101\n")

    code, out, err = dropkit("--add-noqa")

    assert (code, out) == (2, "Silenced 1 finding.\n")
    assert err == "net.py: not silenced: DRP001 in line 8: --fix removes the unused comment\n"
    assert (project / "net.py").read_text() == BAD.replace(LINE, f"{LINE}  # noqa: DRP101") + "x = 1  # noqa: DRP101\n"


def test_add_noqa_joins_the_codes_that_are_there(project):
    (project / "net.py").write_text(BAD.replace(LINE, f"{LINE}  # noqa: E501, DRP2"))

    dropkit("--add-noqa")

    assert (project / "net.py").read_text() == BAD.replace(LINE, f"{LINE}  # noqa: DRP101, DRP2, E501")


def test_add_noqa_keeps_a_comment_without_codes(project):
    """It silences other linters, too: with a code it would not."""
    (project / "net.py").write_text(BAD.replace(LINE, f"{LINE}  # noqa"))

    dropkit("--add-noqa", "--ignore-noqa")

    assert (project / "net.py").read_text() == BAD.replace(LINE, f"{LINE}  # noqa")


def test_a_baseline_hides_it_and_leaves_used_comments_used(project):
    (project / "net.py").write_text(BAD.replace(LINE, f"{LINE}  # noqa: DRP101") + "x = 1  # noqa: DRP101\n")

    assert dropkit("--write-baseline", "base.json")[1] == "Wrote 1 finding to base.json.\n"
    assert dropkit("--baseline", "base.json")[0] == 0
    assert [entry["code"] for entry in json.loads((project / "base.json").read_text())["findings"]] == ["DRP001"]
