"""dropkit check on files and folders: what is read, shown, silenced, mended and kept."""

import json
import os
import subprocess
import sys
import threading

import pytest

from dropkit.lint.engine import baseline
from dropkit.lint.engine.config import BadConfig, Config
from dropkit.lint.engine.discovery import discover
from dropkit.lint.engine.fixing import fix_bytes
from dropkit.lint.engine.project import check_paths, check_source
from dropkit.lint.semantic import noqa
from dropkit.lint.semantic.source_text import Text

BAD = """\
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)
"""
LINE = BAD.splitlines()[-1]
GOOD = BAD.replace("0.5)", "0.5, training=self.training)")


def dropkit(*arguments, cwd, input=None):
    command = [sys.executable, "-m", "dropkit", "check", *map(str, arguments)]
    # From pipes, as scripts do; without a terminal there is no colour.
    return subprocess.run(command, cwd=cwd, input=input, capture_output=True, text=True, timeout=60)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Results of tests are no results of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.dropkit]\n")
    (tmp_path / "net.py").write_text(BAD)
    return tmp_path


def codes(outcome):
    return [finding.code for finding in outcome.findings]


def test_exit_codes_tell_clean_found_and_failed(project):
    assert dropkit(".", cwd=project).returncode == 1
    assert dropkit(".", "--exit-zero", cwd=project).returncode == 0
    (project / "net.py").write_text(GOOD)
    assert dropkit(".", cwd=project).returncode == 0
    failed = dropkit("nowhere", cwd=project)
    assert failed.returncode == 2
    assert "no such file or folder: nowhere" in failed.stderr


def test_nothing_heavy_is_imported_and_nothing_checked_is_run(project):
    (project / "net.py").write_text(BAD + "raise SystemExit('I was run')\n")
    seen = "import sys; from dropkit.cli.check import command; import dropkit.lint.formats, dropkit.rules\n"
    seen += "command(['.'], standalone_mode=False); print([m for m in ('torch', 'numpy') if m in sys.modules])"

    ran = subprocess.run([sys.executable, "-c", seen], cwd=project, capture_output=True, text=True, timeout=60)

    assert ran.stdout.splitlines()[-1] == "[]", ran.stderr
    assert "DRP101" in ran.stdout


def test_fix_writes_what_diff_shows(project):
    shown = dropkit("--diff", ".", cwd=project)
    assert shown.returncode == 1
    assert f"-{LINE}" in shown.stdout
    assert f"+{GOOD.splitlines()[-1]}" in shown.stdout
    assert (project / "net.py").read_text() == BAD

    fixed = dropkit("--fix", ".", cwd=project)

    assert fixed.returncode == 0
    assert (project / "net.py").read_text() == GOOD


@pytest.mark.parametrize(
    ("encoding", "head", "newline"),
    [
        ("utf-8", "", "\r\n"),
        ("utf-8-sig", "", "\n"),
        ("latin-1", "# -*- coding: latin-1 -*-\n# caf\xe9\n", "\n"),
        ("utf-8", "# \u2028 \u00e9 \U0001f600\x0c\n", "\n"),
    ],
    ids=["crlf", "bom", "latin-1", "form feed and separators"],
)
def test_a_fix_keeps_encoding_and_line_ends(tmp_path, encoding, head, newline):
    def data(source):
        return (head + source).replace("\n", newline).encode(encoding)

    source = BAD.replace("x, 0.5)", "x, 0.5)  # caf\xe9")
    file = tmp_path / "net.py"
    file.write_bytes(data(source))

    outcome = check_paths([str(file)], Config(root=tmp_path))
    fixed, done = fix_bytes(file.read_bytes(), outcome.findings, Config(root=tmp_path), unsafe=False)

    assert len(done) == 1
    assert fixed == data(source.replace("0.5)", "0.5, training=self.training)"))


def test_standard_input_is_checked_and_mended(project):
    shown = dropkit("-", "--stdin-filename", "net.py", "-f", "concise", cwd=project, input=BAD)
    assert shown.returncode == 1
    assert shown.stdout.startswith("net.py:7:16: DRP101")

    fixed = dropkit("-", "--fix", cwd=project, input=BAD)

    assert (fixed.returncode, fixed.stdout) == (0, GOOD)


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
def test_a_marker_speaks_for_the_file(tmp_path, marker):
    assert codes(check_source("net.py", f"{marker}\n{BAD}".encode(), Config(root=tmp_path))) == []


def test_dropout_that_stays_on_is_marked_or_named(tmp_path):
    marked = BAD.replace("(nn.Module):", "(nn.Module):  # dropkit: always-on")
    named = Config(root=tmp_path, always_on_names=("N*t",))

    assert codes(check_source("net.py", marked.encode(), Config(root=tmp_path))) == []
    assert codes(check_source("net.py", BAD.encode(), named)) == []


@pytest.mark.parametrize("marker", ["noqa", "dropkit"])
def test_add_noqa_silences_everything_and_keeps_comments(project, marker):
    (project / "net.py").write_text(BAD.replace(LINE, f"{LINE}  # the rate"))

    added = dropkit("--add-noqa", "--marker", marker, ".", cwd=project)

    assert added.stdout == "Silenced 1 finding.\n"
    expected = {"noqa": "# the rate  # noqa: DRP101", "dropkit": "# the rate  # dropkit: ignore[DRP101]"}[marker]
    assert (project / "net.py").read_text().splitlines()[-1].endswith(expected)
    assert dropkit(".", cwd=project).returncode == 0


def test_a_file_is_taken_apart_once_however_much_is_silenced(monkeypatch):
    """Not again for each finding."""
    text = Text(BAD.replace("        return", "        x = F.dropout(x)\n" * 50 + "        return").encode())
    findings = check_source("net.py", text.utf8, Config()).findings
    read = []
    monkeypatch.setattr(noqa, "_tokens", lambda text, real=noqa._tokens: read.append(text) or real(text))

    after = noqa.add_comments(text, findings, "noqa")

    assert after.utf8.count(b"# noqa: DRP101") == 51 < len(findings)
    assert len(read) == 1


def test_a_baseline_shows_only_what_is_new(project):
    assert dropkit("--write-baseline", "known.json", ".", cwd=project).returncode == 0
    assert dropkit("--baseline", "known.json", ".", cwd=project).returncode == 0
    moved = BAD.replace("class", "\n\nclass") + "\n    def other(self, x):\n        return F.dropout(x, 0.25)\n"
    (project / "net.py").write_text(moved)

    shown = dropkit("--baseline", "known.json", "-f", "concise", ".", cwd=project)

    assert shown.returncode == 1
    assert [line.split(":")[1] for line in shown.stdout.splitlines() if "DRP101" in line] == ["12"]
    missing = dropkit("--baseline", "none.json", ".", cwd=project)
    assert missing.returncode == 2
    assert "no such baseline" in missing.stderr
    (project / "known.json").write_text("[]")
    with pytest.raises(BadConfig, match="is not a baseline"):
        baseline.new_findings(project / "known.json", check_paths([str(project)], Config(root=project)), project)


def test_statistics_count(project):
    counted = dropkit("--statistics", ".", cwd=project)

    assert counted.stdout == "1  DRP101  functional-dropout-ignores-mode  [fix]\n"


def test_settings_choose_rules(project):
    def found(table):
        return codes(check_paths([str(project)], Config.parse(table, project)))

    assert found({}) == ["DRP101"]
    assert found({"select": ["DRP2"]}) == []
    assert found({"ignore": ["functional-dropout-ignores-mode"]}) == []
    assert found({"per-file-ignores": {"net.py": ["DRP1"]}}) == []
    assert found({"per-file-ignores": {"other/*": ["DRP1"]}}) == ["DRP101"]
    assert found({"extend-exclude": ["net.py"]}) == []
    assert found({"severity": "error"}) == ["DRP101"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"selct": []}, "selct is not a setting; did you mean select"),
        ({"select": "DRP101"}, "select must be a list of strings, got 'DRP101'"),
        ({"ignore": ["DRP999"]}, "got 'DRP999'"),
        ({"preview": 1}, "preview must be true or false, got 1"),
        ({"severity": "high"}, "severity must be error, warning or info, got 'high'"),
        ({"per-file-ignores": ["a"]}, "per-file-ignores must be a table"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, table, message):
    with pytest.raises(BadConfig, match=message):
        Config.parse(table, tmp_path)


def test_the_nearest_settings_hold(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.dropkit]\nignore = ["DRP101"]\n')
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[project]\n")
    (inner / "net.py").write_text(BAD)

    assert dropkit("inner", cwd=tmp_path).returncode == 0
    (tmp_path / "pyproject.toml").write_text("[tool.dropkit\n")
    broken = dropkit("inner", cwd=tmp_path)
    assert broken.returncode == 2
    assert "pyproject.toml" in broken.stderr


def test_what_git_ignores_and_what_is_excluded_is_left_out(tmp_path):
    def put(name, text=""):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    (tmp_path / ".git").mkdir()
    put(".gitignore", "generated/\n*_pb2.py\n/top.py\n")
    put("deep/.gitignore", "!kept_pb2.py\n")
    for name in (
        "a.py",
        "top.py",
        "deep/top.py",
        "generated/b.py",
        "x_pb2.py",
        "deep/kept_pb2.py",
        ".venv/c.py",
        "n.ipynb",
        "t.txt",
    ):
        put(name)

    def seen(folder, **settings):
        found = discover([str(tmp_path / folder)], Config(root=tmp_path, **settings))
        return [os.path.relpath(path, tmp_path) for path in found]

    assert seen(".") == ["a.py", "deep/kept_pb2.py", "deep/top.py", "n.ipynb"]
    assert seen("deep") == ["deep/kept_pb2.py", "deep/top.py"]
    assert seen("generated/b.py") == seen("generated") == ["generated/b.py"]
    assert "top.py" in seen(".", respect_gitignore=False)
    assert dropkit("--show-files", ".", cwd=tmp_path).stdout.split() == [
        "a.py",
        "deep/kept_pb2.py",
        "deep/top.py",
        "n.ipynb",
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"def f(:  # torch dropout\n", "line 1"),
        (b"print 'torch dropout'\n", "line 1"),
        (b"# coding: nonsense\n# torch dropout\n", "nonsense"),
        (b"x = '\xff torch dropout'\n", "encoding"),
        (b"torch_dropout = 1\x00\n", "null"),
        (b"(" * 10_000 + b"torch dropout", "nested"),
    ],
    ids=["syntax", "python 2", "encoding", "bytes", "null", "nesting"],
)
def test_a_file_that_cannot_be_read_is_one_note(tmp_path, data, reason):
    (tmp_path / "broken.py").write_bytes(data)
    (tmp_path / "net.py").write_text(BAD)

    outcome = check_paths([str(tmp_path)], Config(root=tmp_path))

    assert codes(outcome) == ["DRP101"]
    assert len(outcome.notes) == 1
    assert reason in outcome.notes[0].message


@pytest.mark.parametrize(
    "module",
    [
        "match x:\n    case [1, *_] | True | A(b=None):\n        pass\n",
        "type A = int\n",
        "def f(a, /, *, b): ...\n",
        "with (open(a) as b):\n    pass\n",
    ],
)
def test_newer_grammar_is_read_or_noted(tmp_path, module):
    outcome = check_source("net.py", (module + BAD).encode(), Config(root=tmp_path))

    assert codes(outcome) == ["DRP101"] or len(outcome.notes) == 1


def notebook(*cells, **more):
    document = {
        "cells": [
            {"cell_type": kind, "metadata": {}, "source": source.splitlines(keepends=True)} for kind, source in cells
        ],
        "metadata": more,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def test_notebooks_are_read_and_mended_by_cell(tmp_path):
    imports = "%matplotlib inline\nimport torch.nn.functional as F\nfrom torch import nn\nif F:\n    !ls\n"
    body = BAD.split("\n\n\n")[1]
    file = tmp_path / "a.ipynb"
    cells = [("code", imports), ("markdown", "caf\u00e9"), ("code", "%%bash\nthis is ' not python"), ("code", body)]
    file.write_bytes(notebook(*cells))

    outcome = check_paths([str(file)], Config(root=tmp_path))

    assert [(one.code, one.cell, one.span.line) for one in outcome.findings] == [("DRP101", 4, 3)]
    fixed, done = fix_bytes(file.read_bytes(), outcome.findings, Config(root=tmp_path), unsafe=False)
    assert len(done) == 1
    assert fixed == notebook(*cells[:3], ("code", GOOD.split("\n\n\n")[1]))
    assert outcome.texts[str(file), 4].line(3) == LINE


def test_the_cache_gives_the_same_and_follows_changes(project):
    cache = project / "cache"

    def check():
        outcome = check_paths([str(project)], Config(root=project), cache=cache)
        return [(one.code, one.span, one.fix) for one in outcome.findings]

    cold = check()
    assert check() == cold != []
    kept = next(cache.glob("*.json"))
    assert "DRP101" in kept.read_text()
    (project / "net.py").write_text(GOOD)
    assert check() == []
    (project / "net.py").write_text(BAD)
    kept.write_text("{not json")
    assert check() == cold


def test_several_processes_find_what_one_does(project):
    for number in range(230):
        (project / f"net{number}.py").write_text(BAD if number % 3 else GOOD)

    one, two = (check_paths([str(project)], Config(root=project), jobs=jobs) for jobs in (1, 2))

    assert one.findings == two.findings
    assert len(one.findings) == 1 + 230 - 77


HOLDER = """\
from torch import nn


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.1)
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x)
"""
READERS = {
    "subclass": "from encoder import Encoder\nclass A(Encoder):\n    def forward(self, x): return self.drop(x)\n",
    "subclass of a subclass": "from encoder import Encoder\nclass A(Encoder): ...\n"
    "class B(A):\n    def f(self, x): return self.drop(x)\n",
    "holder": "import encoder\nclass Net:\n    def __init__(self):\n        self.part = encoder.Encoder()\n"
    "    def forward(self, x):\n        return self.part.drop(x)\n",
    "local": "from encoder import Encoder\ndef run(x):\n    part = Encoder()\n    return part.drop(x)\n",
    "loose": "from encoder import Encoder\ndef run(part: Encoder, x):\n    return part.inner.drop(x)\n",
}


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_another_file_may_apply_what_a_class_only_builds(project, reader):
    """Whether the other file is checked with it, or only stands in the same project."""

    def found(*paths):
        return codes(check_paths([str(project / path) for path in paths], Config(root=project)))

    (project / "net.py").unlink()
    (project / "encoder.py").write_text(HOLDER)
    assert found(".") == found("encoder.py") == ["DRP202"]
    (project / "other.py").write_text(reader)

    assert found(".") == found("encoder.py") == []


def test_another_attribute_of_that_name_is_no_answer(project):
    (project / "encoder.py").write_text(HOLDER)
    (project / "net.py").write_text(
        "class Other:\n    def f(self, x):\n        return self.drop(x) + self.part.drop(x)\n"
    )

    assert codes(check_paths([str(project)], Config(root=project))) == ["DRP202"]


def test_watch_checks_again(project):
    command = [sys.executable, "-m", "dropkit", "check", "--watch", "-f", "concise", "."]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True)
    # A watch that misses the change would say nothing for ever.
    deadline = threading.Timer(30, process.kill)
    deadline.start()
    try:
        assert "DRP101" in process.stdout.readline()
        (project / "second.py").write_text(BAD)
        assert any("second.py" in line for line in process.stdout)
    finally:
        deadline.cancel()
        process.kill()
        process.communicate()


@pytest.mark.parametrize("count", [3, 40])
def test_other_files_answer_for_many_classes(tmp_path, count):
    """A subclass in another file applies what its base builds, be it one of few or of many."""
    (tmp_path / "pyproject.toml").write_text("")
    body = "(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.drop = nn.Dropout(0.1)\n"
    forward = "    def forward(self, x):\n        return x\n"
    (tmp_path / "bases.py").write_text(
        "from torch import nn\n" + "".join(f"class Base{i}{body}{forward}" for i in range(count))
    )
    (tmp_path / "subclasses.py").write_text(
        "from bases import *\n"
        + "".join(
            f"class Heir{i}(Base{i}):\n    def run(self, x):\n        return self.drop(x)\n" for i in range(1, count)
        )
    )

    outcome = check_paths([str(tmp_path / "bases.py")], Config(root=tmp_path))

    assert [(one.code, one.span.line) for one in outcome.findings] == [("DRP202", 5)]
