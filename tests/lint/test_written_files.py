"""What dropkit check writes in untrusted folders: nothing outside, nothing through links, nothing by half."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.lint import BAD, SECRET, disk_is_full, dropkit, link, outside

from dropkit.cli import _group

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

    code, _, err = dropkit(*(option.format(place) for option in WRITERS[writer]))

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
        dropkit(*(option.format(name) for option in WRITERS[writer]))

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
    monkeypatch.setattr(os, "fsync", disk_is_full)

    code, out, err = dropkit("--no-cache", *arguments)

    assert code == 2
    assert "No space left on device" in out + err
    assert {path.name for path in project.iterdir()} == {"pyproject.toml", "net.py", "out"}
    assert ((project / "net.py").read_text(), (project / "out").read_text()) == (BAD, SECRET)


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
    """Characters that the terminal lacks are escaped; --show-files gives programs the exact bytes."""
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
