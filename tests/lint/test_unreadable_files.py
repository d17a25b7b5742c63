"""Files that cannot be read: each is named, makes the exit code 2, and keeps no other from being checked."""

import os
import sys
from pathlib import Path

import pytest
from helpers.lint import BAD, GOOD, dropkit

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project import check_paths, check_source
from dropkit.lint.formats import FORMATS
from dropkit.rules import Rule


def fifo(path):
    os.mkfifo(path)


def loop(path):
    path.symlink_to(path.name)


def dangling(path):
    path.symlink_to("nowhere")


def device(path):
    path.symlink_to("/dev/zero")


UNREADABLE = {fifo: "regular file", loop: "symbolic links", dangling: "No such file", device: "regular file"}


odd = pytest.mark.parametrize("make", UNREADABLE, ids=lambda make: make.__name__)


@odd
@pytest.mark.parametrize("given", [".", "odd.py"])
def test_what_is_no_file_is_named_and_the_rest_checked(project, make, given):
    """It is listed in every format, found in a folder or given by name, and reading it does not block."""
    make(project / "odd.py")

    for name in FORMATS:
        code, out, _ = dropkit("-f", name, given, "net.py")

        assert code == 2
        assert "DRP101" in out
        assert "odd.py" in out
        assert UNREADABLE[make] in out


@odd
@pytest.mark.parametrize("name", [".gitignore", "pyproject.toml", "known.json"])
def test_settings_that_are_no_file_are_named(project, make, name):
    """Without .gitignore the files are still checked; unreadable settings or baselines are errors."""
    (project / name).unlink(missing_ok=True)
    make(project / name)

    code, out, err = dropkit("--baseline", name) if name == "known.json" else dropkit()

    if name == ".gitignore" and make is not fifo:
        assert (code, err.count(".gitignore")) == (1, 1)  # git follows no link there
        return
    assert code == 2
    assert name in out + err
    assert ("DRP101" in out) == (name == ".gitignore")


UNPARSABLE = {
    "syntax": b"def f(:  # torch dropout\n",
    "brackets": b"(" * 100_000 + b"torch dropout",
    "signs": b"torch.dropout(" + b"-" * 100_000 + b"1)",
    "digits": b"torch.dropout(" + b"9" * 100_000 + b")",
    "null": b"torch.dropout\0",
    "bytes": b"x = '\xff torch dropout'\n",
    "codec": b"# coding: hex\n# torch dropout\n",
    "punycode": b"# coding: punycode\n# torch dropout -\xff\n",
}
# Python 3.10 parses them, unless its stack is too small: then it crashes.
if sys.version_info >= (3, 11):
    UNPARSABLE["attributes"] = b"torch.dropout(a" + b".a" * 400_000 + b")"  # Python 3.14 reads 100,000 of them
    UNPARSABLE["sums"] = b"torch.dropout(a" + b"+a" * 100_000 + b")"


@pytest.mark.parametrize("data", UNPARSABLE.values(), ids=UNPARSABLE)
def test_what_does_not_parse_is_named_in_every_format(project, data):
    """It is counted in the last line, and other files are checked."""
    (project / "odd.py").write_bytes(data)

    for name in FORMATS:
        code, out, _ = dropkit("-f", name)

        assert code == 2
        assert "odd.py" in out
        assert "DRP101" in out
        if name in ("full", "concise"):
            assert out.endswith("Found 1 error in 1 file.\n1 fixable with --fix.\nNot checked: 1 file.\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--exit-zero"], 0),
        (["--allow-unread"], 1),
        (["--allow-unread", "--exit-zero"], 0),
        (["--statistics"], 2),
        (["--statistics", "-f", "json"], 2),
        (["--diff"], 2),
        (["--add-noqa"], 2),
        (["--write-baseline", "known.json"], 2),
        (["--fix"], 2),
        (["--fix", "--allow-unread"], 0),
        (["--show-files"], 0),
    ],
    ids=str,
)
def test_the_exit_code_says_that_something_was_not_read(project, arguments, code):
    """With --allow-unread it does not; the file is still listed."""
    (project / "odd.py").write_text("def f(:  # torch dropout\n")

    got, out, err = dropkit(*arguments)

    assert got == code
    assert "odd.py" in out + err or "not-checked" in out


def test_a_project_can_allow_what_is_not_read(project):
    (project / "pyproject.toml").write_text("[tool.dropkit]\nallow-unread = true\n")
    (project / "net.py").write_text("def f(:  # torch dropout\n")

    assert dropkit()[0] == 0
    assert dropkit("--no-allow-unread")[0] == 2


def test_standard_input_that_does_not_parse_is_not_clean(project):
    source = "def f(:  # torch dropout\n"

    assert dropkit("-", input=source)[0] == 2
    code, out, err = dropkit("-", "--fix", input=source)
    assert (code, out) == (2, source)
    assert err == "-: not checked: line 1: invalid syntax\n"


ENCODED = {
    "UTF-16": GOOD.encode("utf-16"),
    "UTF-16 without a mark": GOOD.encode("utf-16-be"),
    "UTF-32": GOOD.encode("utf-32"),
    "Latin-1": "x = '\u00e9'\n".encode("latin-1"),
    "unknown": b"#!/bin/python\n# coding: nonsense\n",
}


@pytest.mark.parametrize("data", ENCODED.values(), ids=ENCODED)
def test_what_is_in_another_encoding_than_it_says_is_not_clean(project, data):
    """This holds even if its bytes contain neither torch nor dropout."""
    (project / "net.py").write_bytes(data)

    code, out, _ = dropkit()

    assert code == 2
    assert "net.py: not checked: " in out


NOTEBOOKS = {
    "UTF-16": b"\xff\xfe" + '{"cells": []'.encode("utf-16-le"),
    "cut off": b'{"cells": [',
    "empty": b"",
    "no cells": b"{}",
    "cell": b'{"cells": [{"cell_type": "code", "source": "def f(:"}]}',
}


@pytest.mark.parametrize("data", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_what_is_no_notebook_is_not_clean(project, data):
    """This holds even if it contains no word that rules look for."""
    (project / "n.ipynb").write_bytes(data)

    code, out, _ = dropkit()

    assert code == 2
    assert "n.ipynb: not checked: " in out


def test_words_that_a_notebook_spells_in_escapes_are_read(project):
    spelled = BAD.replace("\n", "\\n").replace("torch", "\\u0074orch").replace("dropout", "drop\\u006fut")
    (project / "net.py").unlink()
    (project / "n.ipynb").write_text(f'{{"cells": [{{"cell_type": "code", "source": "{spelled}"}}]}}')

    assert "DRP101" in dropkit()[1]


@pytest.mark.parametrize(("source", "count"), [(GOOD, "1 file."), (BAD, "1 file."), ("def f(:", "0 files.")])
def test_standard_input_counts_as_a_file(project, source, count):
    """One, or none where it could not be read."""
    lines = dropkit("-", "-f", "concise", "--stdin-filename", "x.py", input=source + "\n# torch dropout\n")[1]

    assert count in lines


def test_an_error_in_one_rule_does_not_stop_the_others(project, monkeypatch):
    """It is named with its error, and the file counts as not read."""

    def findings(self, module, real=Rule.diagnostics):
        return 1 / 0 if self.code == "DRP301" else real(self, module)

    (project / "net.py").write_text(BAD + "d = nn.Dropout(2)\n")
    monkeypatch.setattr(Rule, "diagnostics", findings)

    result = check_paths(["net.py"], Config(root=project))

    assert [finding.code for finding in result.findings] == ["DRP101"]
    assert [note.message for note in result.notes] == ["DRP301 failed: ZeroDivisionError: division by zero"]


def test_a_process_that_dies_costs_one_file(project, monkeypatch):
    """If memory runs out while a file is read, the file is listed and the others are checked."""
    from dropkit.lint.engine import workers

    def check_bytes(path, data, config, real=workers.check_bytes):
        return os._exit(1) if path.endswith("deadly.py") else real(path, data, config)

    monkeypatch.setattr(workers, "check_bytes", check_bytes)
    monkeypatch.setattr(workers, "_MIN_FILES", 3)
    for name in ("deadly", "a", "b", "c"):
        (project / f"{name}.py").write_text(BAD)

    result = check_paths([str(project)], Config(root=project), jobs=2)

    assert len(result.findings) == 4
    assert [(Path(note.path).name, note.message) for note in result.notes] == [
        ("deadly.py", "the process that read it died")
    ]


@pytest.mark.parametrize("rate", ["1e999", "-1e999", "0x" + "f" * 10_000, "-0x" + "f" * 10_000])
def test_a_number_of_any_size_is_a_rate_out_of_range(rate):
    result = check_source("net.py", f"from torch import nn\nd = nn.Dropout({rate})\n".encode(), Config())

    assert ([finding.code for finding in result.findings], result.notes) == (["DRP301"], ())


def test_a_file_that_would_take_all_memory_is_not_read(project):
    """A sparse one takes no room on the disk."""
    with open("odd.py", "wb") as file:
        file.truncate(1 << 40)

    code, out, _ = dropkit()

    assert code == 2
    assert "odd.py: not checked: must hold at most 1 GiB, got 1099511627776 bytes" in out
    assert "DRP101" in out
