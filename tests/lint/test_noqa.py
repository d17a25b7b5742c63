"""Comments that silence findings, and --add-noqa, which writes them."""

import json

import pytest
from helpers.lint import BAD, GOOD, LINE, codes, dropkit

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project import check_source
from dropkit.lint.semantic import noqa_edits
from dropkit.lint.semantic.source_text import Text


@pytest.mark.parametrize(
    "comment",
    [
        "# noqa",
        "# noqa: DRP101",
        "# NOQA:E501,DRP101",
        "# dropkit: ignore",
        "# dropkit: ignore[DRP101]",
        "# x # noqa: DRP101",
    ],
)
def test_a_comment_silences_its_line(tmp_path, comment):
    silenced = BAD.replace(LINE, f"{LINE}  {comment}").encode()

    assert codes(check_source("net.py", silenced, Config(root=tmp_path))) == []
    assert codes(check_source("net.py", silenced, Config(root=tmp_path, respect_noqa=False))) == ["DRP101"]


@pytest.mark.parametrize("comment", ["# noqa: E501", "# noqable", "# dropkit: ignore[DRP102]", "'# noqa'"])
def test_other_comments_do_not(tmp_path, comment):
    source = BAD.replace("x, 0.5)", f"x, 0.5){' + ' if comment.startswith(chr(39)) else '  '}{comment}")

    assert codes(check_source("net.py", source.encode(), Config(root=tmp_path))) == ["DRP101"]


@pytest.mark.parametrize("marker", ["# dropkit: ignore-file", "# dropkit: ignore-file[DRP101]", "# dropkit: always-on"])
def test_a_marker_silences_the_file(tmp_path, marker):
    assert codes(check_source("net.py", f"{marker}\n{BAD}".encode(), Config(root=tmp_path))) == []


def test_dropout_that_stays_on_is_marked_or_named(tmp_path):
    marked = BAD.replace("(nn.Module):", "(nn.Module):  # dropkit: always-on")
    named = Config(root=tmp_path, always_on_names=("N*t",))

    assert codes(check_source("net.py", marked.encode(), Config(root=tmp_path))) == []
    assert codes(check_source("net.py", BAD.encode(), named)) == []


@pytest.mark.parametrize("marker", ["noqa", "dropkit"])
def test_add_noqa_silences_everything_and_keeps_comments(project, marker):
    (project / "net.py").write_text(BAD.replace(LINE, f"{LINE}  # the rate"))

    assert dropkit("--add-noqa", "--marker", marker)[1] == "Silenced 1 finding.\n"

    expected = {"noqa": "# the rate  # noqa: DRP101", "dropkit": "# the rate  # dropkit: ignore[DRP101]"}[marker]
    assert (project / "net.py").read_text().splitlines()[-1].endswith(expected)
    assert dropkit()[0] == 0


def test_a_file_is_tokenized_once_for_all_findings(monkeypatch):
    """Silencing many findings reads the comments once."""
    text = Text(BAD.replace("        return", "        x = F.dropout(x)\n" * 50 + "        return").encode())
    findings = check_source("net.py", text.utf8, Config()).findings
    read = []
    monkeypatch.setattr(
        noqa_edits, "tokens_of", lambda text, real=noqa_edits.tokens_of: read.append(text) or real(text)
    )

    after = noqa_edits.add_comments(text, findings, "noqa")

    assert after.utf8.count(b"# noqa: DRP101") == 51 < len(findings)
    assert len(read) == 1


CANNOT_BE_SILENCED = {
    "continued": GOOD + "    def f(self, x):\n        return F.dropout(x, 0.5) \\\n            + x\n",
    "string": GOOD + '    def f(self, x):\n        return F.dropout(x, 0.5), """\n"""\n',
}


@pytest.mark.parametrize("source", CANNOT_BE_SILENCED.values(), ids=CANNOT_BE_SILENCED)
def test_a_line_that_cannot_hold_a_comment_is_listed(project, source):
    (project / "net.py").write_text(source)
    (project / "bad.py").write_text(BAD)

    code, out, err = dropkit("--add-noqa")

    assert (code, out) == (2, "Silenced 1 finding.\n")
    assert err == "net.py: not silenced: DRP101 in line 9: this line cannot hold a comment\n"


def test_findings_in_notebooks_are_not_silenced(project):
    cell = {"cell_type": "code", "source": BAD}
    (project / "n.ipynb").write_text(json.dumps({"cells": [cell]}))

    code, out, err = dropkit("--add-noqa", "n.ipynb")

    assert (code, out) == (2, "Silenced 0 findings.\n")
    assert err == "n.ipynb: not silenced: DRP101 in cell 1, line 7: comments are not written into notebooks\n"


def test_a_comment_of_many_spaces_is_read_once(project):
    """The regular expression does not backtrack over the spaces."""
    source = BAD.replace("0.5)", "0.5)  # noqa: E501" + " " * 100_000 + "x")

    assert len(check_source("net.py", source.encode(), Config()).findings) == 1
