"""Notebooks: code that is not Python is left out by line or by cell, and the rest is checked."""

import json
from contextlib import suppress

import pytest
from click.testing import CliRunner

from dropkit.cli import _group
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.fixing import fix_bytes
from dropkit.lint.engine.notebook import UnknownLayout
from dropkit.lint.engine.project import check_source
from dropkit.lint.formats import FORMATS

IMPORTS = "import torch.nn.functional as F\nfrom torch import nn"
BAD = "class Net(nn.Module):\n    def forward(self, x):\n        return F.dropout(x, 0.5)\n"
GOOD = BAD.replace("0.5)", "0.5, training=self.training)")

# What IPython reads and Python does not.
IPYTHON = [
    "%matplotlib inline", "!ls", "!!ls", "x = !ls", "x.y = !ls", "a, b = !ls", "x['a'] = !ls", "df = %sql select 'x",
    "t = %timeit -o 3", "!ls \\\n -l \\\n '", "x = !ls \\\n '", "?obj", "??obj", "obj?", "obj??", "obj.attr[0]?",
    "%time?", "*int*?", "/f 1", ",f a b", ";f a b", "pip install torch", "conda install -y torch", "cd ..",
    "if 1:\n    !ls\n    %cd ..", "for f in []:\n    !cat {f} \\\n | wc", "%%bash\nls | grep 'x", "\n\n%%html\n<b>'",
    "%%time\nx = 1", "%%capture out\n!ls", "x = '''\n%d '\n''' % 3\n!ls", "y = (3\n  % 4)\n%cd", "x = 1 \\\n  % 3\n!ls",
    "s = 'a = %d' % 3\n!ls", "\u00e9 = !ls \u00e9'", "await f()", "x = 1\r\n!ls\r\ny = 2", "x = 1\r!ls\ry = 2\r",
]  # fmt: skip
# What neither reads, and the line of the cell where it stops.
NEITHER = {
    "Words, aren't they?": 1,
    "key: [a\n - b": 1,
    "print 'hi'": 1,
    "%load_ext x\n\nprint x": 3,
    "# words\n%%bash\nfoo bar": 3,
    "def f(\n": 1,
    "  x = 1": 1,
    "x\0": None,
    "\ud800 = 3": None,
    "x = " + "(" * 100_000: 1,
    "x = " + "9" * 5000: 1,
    "x = " + "-" * 100_000 + "1": None,
}


def cell(source, kind="code"):
    return {"cell_type": kind, "metadata": {}, "source": source}


def notebook(*sources, **more):
    """A notebook as bytes; a cell is its source, or JSON."""
    cells = [cell(source) if isinstance(source, str) else source for source in sources]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5} | more, indent=1).encode()


def checked(data):
    return check_source("a.ipynb", data, Config())


def places(outcome):
    return [(f.code, f.cell, f.span.line) for f in outcome.findings]


@pytest.mark.parametrize("odd", [*IPYTHON, *NEITHER], ids=lambda odd: ascii(odd[:20]))
def test_what_is_not_python_leaves_the_rest(odd):
    """Findings are placed in their cells, and fixed there, byte by byte."""
    data = notebook(IMPORTS, cell("words"), odd, BAD)

    outcome = checked(data)

    assert places(outcome) == [("DRP101", 4, 3)]
    assert fix_bytes(data, outcome.findings, Config(), unsafe=False)[0] == notebook(IMPORTS, cell("words"), odd, GOOD)
    wanted = [] if odd in IPYTHON else [(3, NEITHER[odd])]
    assert [(note.cell, note.line) for note in outcome.notes] == wanted


@pytest.mark.parametrize("odd", [line for line in IPYTHON if "%%" not in line], ids=lambda odd: ascii(odd[:20]))
def test_what_ipython_reads_leaves_the_lines_around_it(odd):
    """Of the same cell."""
    data = notebook(IMPORTS, f"{odd}\n{BAD}")

    outcome = checked(data)

    line = 3 + len(odd.replace("\r\n", "\n").replace("\r", "\n").split("\n")) - odd.endswith("\r")
    assert (places(outcome), outcome.notes) == ([("DRP101", 2, line)], ())
    assert fix_bytes(data, outcome.findings, Config(), unsafe=False)[0] == notebook(IMPORTS, f"{odd}\n{GOOD}")


@pytest.mark.parametrize("name", FORMATS)
def test_a_cell_that_was_not_read_is_named_with_its_line(name):
    """It is listed in every format, and counted."""
    printed = FORMATS[name](checked(notebook(IMPORTS, "x = 1\nprint x", BAD, "words words")), False)

    assert "cell 2:2: Missing parentheses" in printed
    assert "cell 4:1: invalid syntax" in printed
    if name in ("full", "concise"):
        assert printed.endswith("Not checked: 2 cells of 1 notebook.\n")


ODD_CELLS = [3, None, [], {}, {"cell_type": "code"}, {"cell_type": 3}, cell(3), cell([3]), cell({"a": "b"}), cell(None)]


@pytest.mark.parametrize("odd", ODD_CELLS, ids=str)
def test_a_cell_of_another_shape_is_left_out(odd):
    outcome = checked(notebook(IMPORTS, odd, BAD))

    assert places(outcome) == [("DRP101", 3, 3)]
    assert [note.cell for note in outcome.notes] == [2]


ODD_NOTEBOOKS = {
    "empty": b"",
    "words": b"torch dropout",
    "list": b'["torch", "dropout"]',
    "text": b'"torch dropout"',
    "no cells": b'{"torch": "dropout"}',
    "cells": b'{"cells": "torch dropout"}',
    "nested": b'{"torch": "dropout", "cells": ' + b"[" * 100_000,
    "bytes": b'{"torch": "dropout\xff"}',
    "cut": notebook(IMPORTS, BAD)[:-20],
}


@pytest.mark.parametrize("data", ODD_NOTEBOOKS.values(), ids=ODD_NOTEBOOKS)
def test_a_file_that_is_no_notebook_is_one_note(data):
    outcome = checked(data)

    assert outcome.findings == ()
    assert [note.message.startswith("not a notebook") for note in outcome.notes] == [True]


@pytest.mark.parametrize(
    "value", ["9" * 10_000, "1e999", "NaN", '"\\ud800"', "[" * 500 + "]" * 500], ids=lambda v: v[:5]
)
def test_other_fields_of_a_notebook_do_not_matter(value):
    """Outputs may hold numbers of any size, halves of surrogate pairs and nested lists."""
    data = notebook(IMPORTS, BAD).replace(b'"metadata": {}', b'"metadata": {"x": ' + value.encode() + b"}", 1)

    outcome = checked(data)

    assert (places(outcome), outcome.notes) == ([("DRP101", 2, 3)], ())
    with suppress(UnknownLayout):  # numbers that could not be written as they are
        fixed, done = fix_bytes(data, outcome.findings, Config(), unsafe=False)
        assert len(done) == 1
        assert fixed == data.replace(b"0.5)", b"0.5, training=self.training)")


@pytest.mark.parametrize("metadata", [{"language_info": {"name": "R"}}, {"kernelspec": {"language": "julia"}}])
def test_another_language_is_no_python(metadata):
    """It has neither findings nor notes."""
    outcome = checked(notebook("library(torch); x <- nn_dropout(0.5)", metadata=metadata))

    assert (outcome.findings, outcome.notes) == ((), ())


@pytest.mark.parametrize("metadata", [3, [], None, {"language_info": 3}, {"language_info": {"name": 3}}])
def test_metadata_of_another_shape_say_nothing(metadata):
    assert places(checked(notebook(IMPORTS, BAD, metadata=metadata))) == [("DRP101", 2, 3)]


LAYOUTS = {
    "Jupyter's": {"indent": 1},
    "compact": {"separators": (",", ":")},
    "one line": {},
    "tabs": {"indent": "\t"},
    "no indent": {"indent": 0},
    "compact lines": {"indent": 2, "separators": (",", ":")},
}
MISUSE = "# caf\u00e9\nimport torch.nn.functional as F\nfrom torch import nn\n\n\nclass Net(nn.Module):\n" + (
    "    def forward(self, x):\n        return F.dropout(x, 0.5)\n"
)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["no end", "line feed", "carriage returns"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_fix_changes_nothing_but_the_code(layout, ascii_only, end):
    document = {"cells": [cell(MISUSE), cell("x = 1")], "metadata": {}}
    before, after = (
        (json.dumps(one, ensure_ascii=ascii_only, **layout) + end.replace("\r", "")).replace("\n", end or "\n").encode()
        for one in (
            document,
            {**document, "cells": [cell(MISUSE.replace("0.5)", "0.5, training=self.training)")), cell("x = 1")]},
        )
    )

    fixed, done = fix_bytes(before, checked(before).findings, Config(), unsafe=False)

    assert len(done) == 1
    assert fixed == after


@pytest.mark.parametrize("option", ["--fix", "--diff"])
def test_a_notebook_in_no_layout_is_not_fixed(tmp_path, monkeypatch, option):
    """That is reported, and other files are fixed."""
    monkeypatch.chdir(tmp_path)
    odd = notebook(MISUSE).replace(b'"nbformat": 4,', b'"nbformat":4,')
    (tmp_path / "a.ipynb").write_bytes(odd)
    (tmp_path / "b.py").write_text(MISUSE)

    result = CliRunner().invoke(_group, ["check", "--no-cache", option], standalone_mode=False)

    assert result.return_value == 2
    assert "a.ipynb: not fixed: its JSON is not formatted as Jupyter formats it" in result.output
    assert (tmp_path / "a.ipynb").read_bytes() == odd
    assert ("training=" in (tmp_path / "b.py").read_text()) == (option == "--fix")
