"""Which files are checked: exclusion, .gitignore, and paths that do not exist."""

import errno
import os

import pytest
from helpers.lint import BAD, dropkit

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.discovery import search


def test_what_git_ignores_and_what_is_excluded_is_left_out(tmp_path, monkeypatch):
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
        found = search([str(tmp_path / folder)], Config(root=tmp_path, **settings)).files
        return [os.path.relpath(path, tmp_path) for path in found]

    assert seen(".") == ["a.py", "deep/kept_pb2.py", "deep/top.py", "n.ipynb"]
    assert seen("deep") == ["deep/kept_pb2.py", "deep/top.py"]
    assert seen("generated/b.py") == seen("generated") == ["generated/b.py"]
    assert "top.py" in seen(".", respect_gitignore=False)
    monkeypatch.chdir(tmp_path)
    assert dropkit("--show-files")[1].split() == [
        "a.py",
        "deep/kept_pb2.py",
        "deep/top.py",
        "n.ipynb",
    ]


def test_what_is_watched_must_exist(project):
    assert dropkit("nowhere", "--watch")[::2] == (2, "Error: no such file or folder: nowhere\n")


@pytest.mark.parametrize("option", [[], ["--fix"], ["--diff"]], ids=str)
def test_standard_input_that_is_excluded_is_left_out(project, option):
    (project / "pyproject.toml").write_text('[tool.dropkit]\nexclude = ["gen"]\n')

    code, out, _ = dropkit("-", *option, "--stdin-filename=gen/net.py", input=BAD)

    assert (code, "DRP101" in out) == (0, False)
    assert (out == BAD) == (option == ["--fix"])
    assert dropkit("-", "--stdin-filename=net.py", input=BAD)[0] == 1


def test_a_missing_path_does_not_stop_the_check_of_others(project):
    code, out, _ = dropkit("nowhere.py", "net.py")

    assert code == 2
    assert "nowhere.py: not checked: no such file or folder" in out
    assert "net.py:7:16: DRP101" in out


def test_a_folder_without_python_is_warned_of(project):
    """Otherwise a mistyped path would pass every check. So would a file in another language."""
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
