"""dropkit check in trees that nobody vouches for: links, devices, damaged files, full disks, names of any bytes.

Three laws: nothing outside of the tree is written; no file keeps the others from being checked; and what was not read
is named, counted and exit code 2, never clean.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dropkit.cli import _group
from dropkit.diagnostics import CrossFileCondition, Diagnostic, Edit, Fix, Severity, Span
from dropkit.lint.engine.cache import dump, load
from dropkit.lint.engine.config import BadConfig, Config
from dropkit.lint.engine.project import check_paths, check_source
from dropkit.lint.engine.project_index import ClassSummary
from dropkit.lint.engine.result import FileResult, Note
from dropkit.lint.formats import FORMATS
from dropkit.rules import Rule

BAD = """\
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)
"""
GOOD = BAD.replace("0.5)", "0.5, training=self.training)")
SECRET = "what the user had\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one finding, the working directory; beside it a file and a folder that are not its own."""
    (tmp_path / "victim").write_text(SECRET)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/net.py").write_text(BAD)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.dropkit]\n")
    (folder / "net.py").write_text(BAD)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    return folder


def dropkit(*arguments, input=None):
    """Exit code, standard output and standard error."""
    given = ["check", *map(str, arguments)]
    result = CliRunner().invoke(_group, given, input=input, standalone_mode=False, catch_exceptions=False)
    return result.return_value, result.stdout, result.stderr


def outside(project):
    """All that lies beside the project, by name."""
    beside = project.parent
    kept = [beside / "victim", *sorted((beside / "elsewhere").rglob("*"))]
    return {str(path): path.read_bytes() for path in kept}


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


# What is written, and where


def test_results_are_kept_out_of_the_project_by_default(project, tmp_path):
    """In the user's cache folder, one folder a project: nothing in a tree can stand for a result of it."""
    before = sorted(project.rglob("*"))

    assert dropkit()[0] == 1
    (kept,) = (tmp_path / "cache").rglob("*.json")
    assert dropkit(project.parent / "elsewhere")[0] == 1

    assert sorted(project.rglob("*")) == before
    assert "DRP101" in kept.read_text()
    assert len(list((tmp_path / "cache/dropkit").iterdir())) == 2


def test_a_project_cannot_say_where_results_are_kept(project):
    """It could have any file of the user's written, or bring results of its own."""
    with pytest.raises(BadConfig, match="cache-dir is not a setting"):
        Config.parse({"cache-dir": "/"}, project)


def test_a_relative_cache_home_counts_as_none(project, monkeypatch, tmp_path):
    """As the XDG specification has it: it would lie in whatever folder is checked."""
    monkeypatch.setenv("XDG_CACHE_HOME", "kept")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    dropkit()

    assert not (project / "kept").exists()
    assert list((tmp_path / "home/.cache/dropkit").rglob("*.json"))


LINKED_CACHES = {"kept": ("kept", "../elsewhere"), "above/kept": ("above", "../elsewhere")}


@pytest.mark.parametrize("cache", LINKED_CACHES)
def test_a_cache_folder_behind_a_link_is_refused(project, cache):
    """The check goes on without, and says so once."""
    link(project / LINKED_CACHES[cache][0], LINKED_CACHES[cache][1])
    before = outside(project)

    code, out, err = dropkit("--cache-dir", cache)

    assert (code, outside(project)) == (1, before)
    assert "net.py:7:16: DRP101" in out
    assert err == f"warning: results are neither kept nor reused: {cache} is, or lies behind, a symbolic link\n"


def test_a_link_in_the_cache_folder_is_not_written_through(project):
    """.gitignore is created where nothing has its name."""
    link(project / "kept/.gitignore", "../../victim")

    assert dropkit("--cache-dir", "kept")[0] == 1

    assert (project.parent / "victim").read_text() == SECRET
    assert list((project / "kept").glob("*.json"))


def test_a_file_of_the_cache_that_is_a_link_is_neither_read_nor_written(project):
    """Results that stand where somebody else put them are not results."""
    dropkit("--cache-dir", "kept")
    (kept,) = (project / "kept").glob("*.json")
    kept.write_text(
        json.dumps({key: [digest, [[], [], None]] for key, (digest, _) in json.loads(kept.read_text()).items()})
    )
    assert dropkit("--cache-dir", "kept")[0] == 0
    kept.rename(project.parent / "forged.json")
    kept.symlink_to("../../forged.json")

    assert dropkit("--cache-dir", "kept")[0] == 1
    assert "DRP101" not in (project.parent / "forged.json").read_text()


WRITERS = {
    "report": ["-o", "{}"],
    "baseline": ["--write-baseline", "{}"],
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("place", ["out.json", "linked/victim"])
def test_what_is_written_by_name_does_not_follow_a_link(project, writer, place):
    """Neither a file that is one, nor a folder that leads out of the project."""
    link(project / "out.json", "../victim")
    link(project / "linked", "..")
    before = outside(project)

    code, _, err = dropkit(*(one.format(place) for one in WRITERS[writer]))

    assert (code, outside(project)) == (2, before)
    assert place in err
    assert "symbolic link" in err


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_written_keeps_its_permissions(project, writer):
    """A new file has those that any other program would give it."""
    (project / "plain").write_text("")
    (project / "old").write_text("")
    (project / "old").chmod(0o640)

    for name in ("old", "new"):
        dropkit(*(one.format(name) for one in WRITERS[writer]))

    assert (project / "old").stat().st_mode & 0o777 == 0o640
    assert (project / "new").stat().st_mode == (project / "plain").stat().st_mode
    assert (project / "new").read_bytes() == (project / "old").read_bytes() != b""
    assert not list(project.glob("*.tmp"))


def test_devices_are_written_to_and_not_replaced(project):
    """/dev/null stays what it is, and /dev/stdout is a link by custom."""
    assert dropkit("-o", "/dev/null")[0] == 1
    assert not Path("/dev/null").is_file()
    command = [sys.executable, "-m", "dropkit", "check", "-f", "concise", "-o", "/dev/stdout"]
    assert "DRP101" in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def read_only(project):
    (project / "net.py").chmod(0o444)


def hard_link(project):
    os.link(project / "net.py", project / "other_name.txt")


def linked(project):
    (project / "net.py").unlink()
    link(project / "net.py", "../elsewhere/net.py")


def linked_folder(project):
    (project / "net.py").unlink()
    link(project / "net", "../elsewhere")


LEFT_ALONE = {read_only: "read-only", hard_link: "hard links", linked: "symbolic link", linked_folder: "symbolic link"}


@pytest.mark.parametrize("make", LEFT_ALONE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("option", ["--fix", "--add-noqa", "--diff"])
def test_files_that_are_not_only_this_one_are_not_edited(project, make, option):
    """An edit would reach further than the name says, or where its owner does not want it. The others are fixed."""
    make(project)
    (project / "second.py").write_text(BAD)
    before = {path: path.read_bytes() for path in project.parent.rglob("*.py")}

    code, out, err = dropkit(option, "net" if make is linked_folder else "net.py", "second.py")

    assert code == 2
    assert "net.py: not fixed: it" in out + err
    assert LEFT_ALONE[make] in out + err
    changed = {path.name for path in before if path.read_bytes() != before[path]}
    assert changed == (set() if option == "--diff" else {"second.py"})
    assert option != "--diff" or out.count("+++") == 1


@pytest.mark.parametrize("arguments", [["--fix"], ["--add-noqa"], ["-o", "out"], ["--write-baseline", "out"]], ids=str)
def test_a_full_disk_leaves_every_file_whole(project, monkeypatch, arguments):
    """The old content stays, no temporary file does, and the exit code says so."""
    (project / "out").write_text(SECRET)
    monkeypatch.setattr(os, "fsync", full)

    code, out, err = dropkit("--no-cache", *arguments)

    assert code == 2
    assert "No space left on device" in out + err
    assert {path.name for path in project.iterdir()} == {"pyproject.toml", "net.py", "out"}
    assert ((project / "net.py").read_text(), (project / "out").read_text()) == (BAD, SECRET)


def full(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_cache_that_cannot_be_written_is_a_warning(project, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)

    code, out, err = dropkit()

    assert (code, "DRP101" in out) == (1, True)
    assert err.startswith("warning: results are not kept in ")
    assert err.endswith(": No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_report_that_cannot_be_printed_is_an_error(project):
    command = [sys.executable, "-m", "dropkit", "check", "-f", "concise"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert (done.returncode, done.stderr) == (2, "Error: standard output: No space left on device\n")


@pytest.mark.parametrize("arguments", [[], ["-"], ["--fix"], ["--add-noqa"], ["--show-files"], ["--diff"]], ids=str)
def test_closed_output_is_an_error_before_anything_is_written(project, monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "stdout", None)

    assert _group.main(["check", *arguments], standalone_mode=False) == 2
    assert capsys.readouterr().err == "Error: standard output is closed\n"
    assert (project / "net.py").read_text() == BAD
    assert _group.main(["check", "-o", "report", "net.py"], standalone_mode=False) == 1


def test_closed_input_is_an_error_where_it_is_read(project, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)

    assert _group.main(["check", "-"], standalone_mode=False) == 2
    assert capsys.readouterr().err == "Error: standard input is closed\n"
    assert _group.main(["check"], standalone_mode=False) == 1


def test_names_are_printed_in_any_encoding_of_the_terminal(project):
    """With their bytes spelt out where it has no character for them; to a program, listed as they are."""
    name = os.fsdecode(b"\xe9\xe6\x97\xa5.py")
    (project / "net.py").rename(project / name)
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}

    def run(*options):
        command = [sys.executable, "-m", "dropkit", "check", *options]
        return subprocess.run(command, env=environment, capture_output=True, check=False).stdout

    assert run("-f", "concise").startswith(b"\\udce9\\u65e5.py:7:16: DRP101")
    assert run("--show-files") == os.fsencode(name) + b"\n"


def test_a_module_of_the_project_is_not_run_in_place_of_the_checkers_own(project):
    """`python -m` puts the working directory before the standard library."""
    for name in ("json", "tokenize", "click", "tomllib", "difflib", "rich"):
        (project / f"{name}.py").write_text("raise SystemExit('I was run')\n")

    done = subprocess.run(
        [sys.executable, "-m", "dropkit", "check", "--diff"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (1, "")


# What is asked for

CLASHES = [
    *(["--watch", task] for task in ("--fix", "--diff", "--add-noqa", "--show-files", "--write-baseline=b")),
    *([task, "--add-noqa"] for task in ("--fix", "--diff", "--show-files", "--write-baseline=b")),
    *([task, "--write-baseline=b"] for task in ("--fix", "--diff", "--show-files")),
    *(["-", task] for task in ("--watch", "--add-noqa", "--show-files", "--write-baseline=b")),
    *([*how, report] for how in (["-", "--fix"], ["--diff"], ["--add-noqa"]) for report in ("-oout", "--statistics")),
    ["--stdin-filename=x.py", "net.py"],
    *([f"{name}="] for name in ("--output-file", "--baseline", "--write-baseline", "--cache-dir", "--stdin-filename")),
]


@pytest.mark.parametrize("arguments", CLASHES, ids=" ".join)
def test_options_that_would_be_passed_over_are_an_error(project, arguments):
    """Nothing is read or written."""
    with pytest.raises(click.UsageError, match="must"):
        dropkit(*arguments, input=BAD)

    assert sorted(path.name for path in project.iterdir()) == ["net.py", "pyproject.toml"]
    assert (project / "net.py").read_text() == BAD


@pytest.mark.parametrize("given", [["--fix", "--diff"], ["-", "--fix", "--diff"], ["--fix", "-oout"], ["-", "-oout"]])
def test_options_that_go_together_do(project, given):
    assert dropkit(*given, input=BAD)[0] in (0, 1)


def test_what_is_watched_must_exist(project):
    assert dropkit("nowhere", "--watch")[::2] == (2, "Error: no such file or folder: nowhere\n")


def test_a_baseline_is_written_with_what_an_earlier_one_holds(project):
    for arguments in (["--write-baseline=b"], ["--baseline=b", "--write-baseline=b"]):
        assert dropkit(*arguments)[:2] == (0, "Wrote 1 finding to b.\n")

    assert dropkit("--baseline=b")[0] == 0


def test_a_baseline_holds_for_standard_input(project):
    dropkit("--write-baseline=b")

    assert dropkit("-", "--baseline=b", "--stdin-filename=net.py", input=BAD)[0] == 0
    assert dropkit("-", "--baseline=b", "--stdin-filename=other.py", input=BAD)[0] == 1
    assert dropkit("-", "--fix", "--baseline=b", "--stdin-filename=net.py", input=BAD)[:2] == (0, BAD)


@pytest.mark.parametrize("option", [[], ["--fix"], ["--diff"]], ids=str)
def test_standard_input_that_is_excluded_is_left_out(project, option):
    (project / "pyproject.toml").write_text('[tool.dropkit]\nexclude = ["gen"]\n')

    code, out, _ = dropkit("-", *option, "--stdin-filename=gen/net.py", input=BAD)

    assert (code, "DRP101" in out) == (0, False)
    assert (out == BAD) == (option == ["--fix"])
    assert dropkit("-", "--stdin-filename=net.py", input=BAD)[0] == 1


CANNOT_BE_SILENCED = {
    "continued": GOOD + "    def f(self, x):\n        return F.dropout(x, 0.5) \\\n            + x\n",
    "string": GOOD + '    def f(self, x):\n        return F.dropout(x, 0.5), """\n"""\n',
}


@pytest.mark.parametrize("source", CANNOT_BE_SILENCED.values(), ids=CANNOT_BE_SILENCED)
def test_a_line_that_bears_no_comment_is_named(project, source):
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


def test_a_relative_home_keeps_nothing(project, monkeypatch):
    monkeypatch.setenv("HOME", "home")
    monkeypatch.delenv("XDG_CACHE_HOME")

    assert dropkit()[0] == 1
    assert not (project / "home").exists()


def test_a_mark_of_byte_order_is_no_part_of_the_settings(project):
    (project / "pyproject.toml").write_text('\ufeff[tool.dropkit]\nignore = ["DRP101"]\n')

    assert dropkit()[0] == 0


# What is read


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
    """Found in a folder or given by name, in every format; nothing waits for it."""
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
    """Without .gitignore the files are still checked; without settings or baseline nothing is known to be wanted."""
    (project / name).unlink(missing_ok=True)
    make(project / name)

    code, out, err = dropkit("--baseline", name) if name == "known.json" else dropkit()

    if name == ".gitignore" and make is not fifo:
        assert (code, err.count(".gitignore")) == (1, 1)  # git follows no link there
        return
    assert code == 2
    assert name in out + err
    assert ("DRP101" in out) == (name == ".gitignore")


def test_a_path_that_is_missing_does_not_keep_the_others(project):
    code, out, _ = dropkit("nowhere.py", "net.py")

    assert code == 2
    assert "nowhere.py: not checked: no such file or folder" in out
    assert "net.py:7:16: DRP101" in out


def test_a_folder_without_python_is_warned_of(project):
    """A slip of the hand in a path would otherwise pass every check. So would a file that is something else."""
    (project / "empty").mkdir()
    (project / "notes.md").write_text("words\n")

    assert dropkit("empty")[::2] == (0, "warning: no Python file or notebook to check below empty\n")
    assert dropkit("notes.md")[::2] == (
        0,
        "warning: notes.md is checked as Python, although its name does not end in .py\n",
    )
    assert dropkit("net.py")[2] == ""


def test_a_folder_that_cannot_be_listed_is_named(project, monkeypatch):
    def scandir(path, real=os.scandir):
        if path == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    (project / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)

    code, out, _ = dropkit()

    assert code == 2
    assert "closed: not checked: Permission denied" in out
    assert "DRP101" in out


UNPARSABLE = {
    "syntax": b"def f(:  # torch dropout\n",
    "brackets": b"(" * 100_000 + b"torch dropout",
    "signs": b"torch.dropout(" + b"-" * 100_000 + b"1)",
    "attributes": b"torch.dropout(a" + b".a" * 100_000 + b")",
    "sums": b"torch.dropout(a" + b"+a" * 100_000 + b")",
    "digits": b"torch.dropout(" + b"9" * 100_000 + b")",
    "null": b"torch.dropout\0",
    "bytes": b"x = '\xff torch dropout'\n",
    "codec": b"# coding: hex\n# torch dropout\n",
    "punycode": b"# coding: punycode\n# torch dropout -\xff\n",
}


@pytest.mark.parametrize("data", UNPARSABLE.values(), ids=UNPARSABLE)
def test_what_does_not_parse_is_named_in_every_format(project, data):
    """And counted in the last line; what can be checked is."""
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
    """Unless the user says that it is to be passed over; it is named then, too."""
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
    """Nor where none of its bytes spell torch or dropout."""
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
    """Nor where it holds no word that a rule looks for."""
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


def test_a_fault_of_one_rule_leaves_the_others(project, monkeypatch):
    """It is named with its error, and the file counts as not read."""

    def findings(self, module, real=Rule.diagnostics):
        return 1 / 0 if self.code == "DRP301" else real(self, module)

    (project / "net.py").write_text(BAD + "d = nn.Dropout(2)\n")
    monkeypatch.setattr(Rule, "diagnostics", findings)

    outcome = check_paths(["net.py"], Config(root=project))

    assert [one.code for one in outcome.findings] == ["DRP101"]
    assert [one.message for one in outcome.notes] == ["DRP301 failed: ZeroDivisionError: division by zero"]


def test_a_process_that_dies_costs_one_file(project, monkeypatch):
    """As where memory runs out while a file is read: the others are checked, and the file is named."""
    from dropkit.lint.engine import workers

    def check_bytes(path, data, config, real=workers.check_bytes):
        return os._exit(1) if path.endswith("deadly.py") else real(path, data, config)

    monkeypatch.setattr(workers, "check_bytes", check_bytes)
    monkeypatch.setattr(workers, "_MIN_FILES", 3)
    for name in ("deadly", "a", "b", "c"):
        (project / f"{name}.py").write_text(BAD)

    outcome = check_paths([str(project)], Config(root=project), jobs=2)

    assert len(outcome.findings) == 4
    assert [(Path(one.path).name, one.message) for one in outcome.notes] == [
        ("deadly.py", "the process that read it died")
    ]


@pytest.mark.parametrize("rate", ["1e999", "-1e999", "0x" + "f" * 10_000, "-0x" + "f" * 10_000])
def test_a_number_of_any_size_is_a_rate_out_of_range(rate):
    outcome = check_source("net.py", f"from torch import nn\nd = nn.Dropout({rate})\n".encode(), Config())

    assert ([one.code for one in outcome.findings], outcome.notes) == (["DRP301"], ())


def test_a_file_that_would_take_all_memory_is_not_read(project):
    """A sparse one takes no room on the disk."""
    with open("odd.py", "wb") as file:
        file.truncate(1 << 40)

    code, out, _ = dropkit()

    assert code == 2
    assert "odd.py: not checked: must hold at most 1 GiB, got 1099511627776 bytes" in out
    assert "DRP101" in out


def test_a_comment_of_many_spaces_is_read_once(project):
    """Not once for each way to part them."""
    source = BAD.replace("0.5)", "0.5)  # noqa: E501" + " " * 100_000 + "x")

    assert len(check_source("net.py", source.encode(), Config()).findings) == 1


def test_names_and_patterns_of_many_stars_are_matched(project):
    config = Config(root=project, exclude=("*a" * 40 + "b",), per_file_ignores={"*a" * 40 + "c/x": ("DRP1",)})

    assert len(check_source("a" * 200 + ".py", BAD.encode(), config).findings) == 1
    assert not config.matches("a" * 200, config.exclude[0])


# Settings


WRONG = {
    "number": "3", "float": "1e999", "huge": "0x" + "f" * 10_000, "text": '"a"', "list": "[1]", "lists": "[[]]",
    "table": "{a = 1}", "date": "2020-01-01", "tables": "{a = {}}", "mixed": '["DRP1", 3]', "boolean": "true",
}  # fmt: skip
KINDS = {
    "select": (), "extend-select": (), "ignore": (), "exclude": (), "extend-exclude": (), "always-on-names": (),
    "preview": ("boolean",), "respect-gitignore": ("boolean",), "allow-unread": ("boolean",), "severity": (),
    "per-file-ignores": (),
}  # fmt: skip


@pytest.mark.parametrize("key", KINDS)
def test_a_setting_of_another_kind_is_named(project, key):
    """With every kind of value that it cannot have: one line, exit code 2, and what the value was."""
    for kind in WRONG.keys() - KINDS[key]:
        (project / "pyproject.toml").write_text(f"[tool.dropkit]\n{key} = {WRONG[kind]}\n")

        code, out, err = dropkit()

        assert (code, out) == (2, "")
        assert err.startswith("Error: ")
        assert f"pyproject.toml: {key}" in err
        assert " must " in err
        assert len(err) < 500


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tool = 3\n", "tool must be a table, got 3"),
        ("[[tool]]\n", "tool must be a table"),
        ("tool.dropkit = []\n", "tool.dropkit must be a table, got []"),
        ("[[tool.dropkit]]\n", "tool.dropkit must be a table"),
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("x = " + "9" * 100_000, "Exceeds the limit"),
        ("[tool.dropkit]\n\udcff = 1\n", "utf-8"),
        ("[tool.dropkit]\n'\x1b[2J' = 1\n", "pyproject.toml"),
    ],
    ids=["tool", "tools", "dropkit", "dropkits", "nested", "digits", "bytes", "escape"],
)
def test_a_pyproject_of_another_shape_is_one_line(project, text, named):
    (project / "pyproject.toml").write_bytes(text.encode(errors="surrogateescape"))

    code, out, err = dropkit()

    assert (code, out) == (2, "")
    assert named in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "it must be an object with format, findings"),
        ("{}", "format of it must be a whole number"),
        ("", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("\udcff", "it is not JSON"),
        ('{"format": 1e999}', "format of it must be a whole number"),
        ('{"format": 2, "findings": []}', "its format must be 1, got 2"),
        ('{"format": 1, "findings": 3}', "findings of it must be a list"),
        ('{"format": 1, "findings": [3]}', "finding 1 must be an object with path, code, line, count"),
        ('{"format": 1, "findings": [{"path": []}]}', "path of finding 1 must be text"),
        ('{"format": 1, "findings": [{"path": "a", "code": "b", "line": "c", "count": 1e999}]}', "a whole number"),
    ],
    ids=lambda one: one[:40],
)
def test_a_damaged_baseline_is_an_error(project, text, why):
    (project / "known.json").write_bytes(text.encode(errors="surrogateescape"))

    code, out, err = dropkit("--baseline", "known.json")

    assert (code, out) == (2, "")
    assert "known.json is not a baseline" in err
    assert why in err


# Caches


def mutations(value, junk):
    """`value` with each of its parts replaced by each of `junk`."""
    yield from junk
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for one in mutations(part, junk):
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[key] = one
            yield copy


JUNK = [None, True, -1, 0.5, 1e999, 1 << 70, "x", "\ud800", [], [[]], {}, {"a": []}, {"a": ["b"]}]


def test_of_a_cache_only_that_is_taken_which_could_have_been_written():
    """Whatever stands in the place of each of a record's parts: it is refused, or means what it says."""
    finding = Diagnostic(
        "DRP101",
        "m",
        Severity.ERROR,
        "a.py",
        Span(1, 1, 1, 2),
        Fix("t", (Edit(0, 1, "x"),)),
        CrossFileCondition("A", "b"),
    )
    account = ClassSummary({"A": ["B"]}, {"A": ["b"]}, ["A.b"], ["c"], ["d"])
    whole = json.loads(json.dumps(dump(FileResult((finding,), (Note("a.py", "m", 1, 2),), account))))
    assert dump(load("a.py", whole)) == whole

    refused = 0
    for one in mutations(whole, JUNK):
        try:
            assert dump(load("a.py", one)) == one
        except ValueError:
            refused += 1
    assert refused > 400


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '"x"', "\udcff", "[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "1e999", "NaN"],
    ids=lambda text: text[:5],
)
def test_a_damaged_cache_is_no_cache(project, text):
    """The file as a whole, and each of its entries."""
    expected = dropkit("--no-cache", "-f", "json")
    dropkit("--cache-dir", "kept")
    (kept,) = (project / "kept").glob("*.json")
    keys = json.loads(kept.read_text())

    for content in (text, *(json.dumps(dict.fromkeys(keys, junk)) for junk in (text, [text, text], [[text]] * 2))):
        kept.write_bytes(content.encode(errors="surrogateescape"))

        assert dropkit("--cache-dir", "kept", "-f", "json") == expected


@pytest.mark.parametrize("name", FORMATS)
def test_a_forged_place_is_shown_as_far_as_it_can_be(project, name):
    """A record that could have been written, of another file."""
    dropkit("--cache-dir", "kept")
    (kept,) = (project / "kept").glob("*.json")
    forged = kept.read_text().replace("[7,16,7,33]", "[70000,16,3,1]")
    assert forged != kept.read_text()
    kept.write_text(forged)

    code, out, _ = dropkit("--cache-dir", "kept", "-f", name)

    assert code == 1
    assert "70000" in out
