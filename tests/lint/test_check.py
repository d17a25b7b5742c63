"""dropkit check on files, standard input and notebooks: reports, fixes, exit codes."""

import subprocess
import sys
import threading

import pytest
from helpers.lint import BAD, GOOD, LINE, codes, dropkit, notebook

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.fixing import fix_bytes
from dropkit.lint.engine.project import check_paths, check_source


def test_exit_codes_are_0_clean_1_found_2_failed(project):
    assert dropkit()[0] == 1
    assert dropkit("--exit-zero")[0] == 0
    (project / "net.py").write_text(GOOD)
    assert dropkit()[0] == 0
    assert dropkit("nowhere")[::2] == (2, "Error: no such file or folder: nowhere\n")


def test_nothing_heavy_is_imported_and_nothing_checked_is_run(project):
    (project / "net.py").write_text(BAD + "raise SystemExit('I was run')\n")
    seen = "import sys; from dropkit.cli.check import command; import dropkit.lint.formats, dropkit.rules\n"
    seen += "command(['.'], standalone_mode=False); print([m for m in ('torch', 'numpy') if m in sys.modules])"

    ran = subprocess.run([sys.executable, "-c", seen], cwd=project, capture_output=True, text=True, timeout=60)

    assert ran.stdout.splitlines()[-1] == "[]", ran.stderr
    assert "DRP101" in ran.stdout


def test_fix_writes_what_diff_shows(project):
    code, out, _ = dropkit("--diff")
    assert code == 1
    assert f"-{LINE}" in out
    assert f"+{GOOD.splitlines()[-1]}" in out
    assert (project / "net.py").read_text() == BAD

    code, out, _ = dropkit("--fix")

    assert (code, out.splitlines()[0]) == (0, "Fixed 1: 1 x DRP101.")
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

    result = check_paths([str(file)], Config(root=tmp_path))
    fixed, done = fix_bytes(file.read_bytes(), result.findings, Config(root=tmp_path), unsafe=False)

    assert len(done) == 1
    assert fixed == data(source.replace("0.5)", "0.5, training=self.training)"))


def test_standard_input_is_checked_and_fixed(project):
    code, out, _ = dropkit("-", "--stdin-filename", "net.py", "-f", "concise", input=BAD)

    assert code == 1
    assert out.startswith("net.py:7:16: DRP101")
    assert dropkit("-", "--fix", input=BAD)[:2] == (0, GOOD)


def test_statistics_count(project):
    assert dropkit("--statistics")[1] == "1  DRP101  functional-dropout-ignores-mode  [fix]\n"


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
def test_each_file_that_cannot_be_read_gives_one_note(tmp_path, data, reason):
    (tmp_path / "broken.py").write_bytes(data)
    (tmp_path / "net.py").write_text(BAD)

    result = check_paths([str(tmp_path)], Config(root=tmp_path))

    assert codes(result) == ["DRP101"]
    assert len(result.notes) == 1
    assert reason in result.notes[0].message


@pytest.mark.parametrize(
    "module",
    [
        "match x:\n    case [1, *_] | True | A(b=None):\n        pass\n",
        "type A = int\n",
        "def f(a, /, *, b): ...\n",
        "with (open(a) as b):\n    pass\n",
    ],
)
def test_newer_grammar_is_checked_or_noted(tmp_path, module):
    result = check_source("net.py", (module + BAD).encode(), Config(root=tmp_path))

    assert codes(result) == ["DRP101"] or len(result.notes) == 1


def test_notebooks_are_checked_and_fixed_by_cell(tmp_path):
    imports = "%matplotlib inline\nimport torch.nn.functional as F\nfrom torch import nn\nif F:\n    !ls\n"
    body = BAD.split("\n\n\n")[1]
    file = tmp_path / "a.ipynb"
    cells = [("code", imports), ("markdown", "caf\u00e9"), ("code", "%%bash\nthis is ' not python"), ("code", body)]
    file.write_bytes(notebook(*cells))

    result = check_paths([str(file)], Config(root=tmp_path))

    assert [(f.code, f.cell, f.span.line) for f in result.findings] == [("DRP101", 4, 3)]
    fixed, done = fix_bytes(file.read_bytes(), result.findings, Config(root=tmp_path), unsafe=False)
    assert len(done) == 1
    assert fixed == notebook(*cells[:3], ("code", GOOD.split("\n\n\n")[1]))
    assert result.texts[str(file), 4].line(3) == LINE


def test_several_processes_find_what_one_does(project):
    for number in range(230):
        (project / f"net{number}.py").write_text(BAD if number % 3 else GOOD)

    one, two = (check_paths([str(project)], Config(root=project), jobs=jobs) for jobs in (1, 2))

    assert one.findings == two.findings
    assert len(one.findings) == 1 + 230 - 77


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
