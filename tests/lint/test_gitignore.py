"""Patterns of .gitignore mean what they mean to git, whatever they are, and none takes long."""

import os
import random
import shutil
import subprocess

import pytest

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.discovery import search
from dropkit.lint.engine.gitignore import Patterns, _expression, part_of_path

# Without `a**/b`, which older versions of git misread.
PATTERNS = [
    "a.py", "*.py", "/a.py", "a/", "/a", "a/b", "a/*", "a/**", "**/b", "a/**/b", "**", "*", "?.py", "[ab].py",
    "[!a].py", "[^a].py", "[a-c]*", "[z-a]*", "[]a]*", "[a", "[[:alpha:]].py", "[[:digit:]x]*", "[[:nope:]]*",
    "[a-]*", "[-a]*", "[a\\]b]*", "\\a.py", "\\#x", "\\!x", "#x", "!a.py", "a.py ", "a.py\\ ", "a\\", "//", "/", "!",
    "***", "a***b", "**a", "a/***/b", "\u00e9", "?", "??", "[\u00e9]", "a\\/b", "b/a[/]b", " a", "a b", "x\r",
    "*[", "**/**/b", "a/**/**", "*a*a*b*", "/**/a.py", "!/a/", "[!]a]*", "[[:upper:][:digit:]]*", "*]",
]  # fmt: skip
NAMES = [
    "a",
    "b",
    "a.py",
    "b.py",
    "x",
    "#x",
    "!x",
    "a ",
    " a",
    "\u00e9",
    "]",
    "aab",
    "z.py",
    "A1",
    "a b",
    "-",
    "[",
    "a]b",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A repository with files and folders of odd names, and their paths."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    chance = random.Random(0)
    for _ in range(200):
        path = root.joinpath(*chance.choices(NAMES, k=chance.randint(1, 3)))
        if not path.exists() and all(above.is_dir() for above in path.parents if above.exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if chance.random() < 0.3 else path.write_text("")
    return root, sorted(path for path in root.rglob("*") if ".git" not in path.parts)


def patterns_of(data):
    """The patterns of a .gitignore in the folder that paths are relative to."""
    return Patterns().with_file(data, 0)


def ignored_by_git(root, paths):
    command = ["git", "-C", str(root), "check-ignore", "-z", "--no-index", "--stdin"]
    given = b"\0".join(path.relative_to(root).as_posix().encode() for path in paths)
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {root / path for path in done.stdout.decode().split("\0") if path}


def ignored(patterns, root, path):
    """Whether the path, or a folder that it lies in, is ignored."""
    ways = [path, *path.parents][: len(path.relative_to(root).parts)]
    verdicts = [patterns.ignores([*map(part_of_path, way.relative_to(root).parts)], way.is_dir()) for way in ways]
    return any(verdicts)


def test_a_pattern_means_what_it_means_to_git(tree):
    """Patterns with unusual syntax, and mixtures of them, match as in git."""
    root, paths = tree
    chance = random.Random(0)

    for lines in (*([pattern] for pattern in PATTERNS), *(chance.sample(PATTERNS, 3) for _ in range(30))):
        data = "\n".join(lines).encode()
        (root / ".gitignore").write_bytes(data)
        patterns = patterns_of(data)

        assert {path for path in paths if ignored(patterns, root, path)} == ignored_by_git(root, paths), lines


@pytest.mark.parametrize(
    "data", [b"\xff*\n", b"\xef\xbb\xbfa.py\n", b"a.py\r\nb.py\r\n", b"\0\n", b"!\n", b"\n\n", b""]
)
def test_no_content_is_an_error(data):
    patterns_of(data).ignores(["a.py"], is_folder=False)


def test_what_git_leaves_out_is_left_out(tree_of, tmp_path):
    """The patterns are those of folders above and below and of the repository; links are not followed."""
    tree_of(".git/info/exclude", "x.py\ny.py\n")
    tree_of(".gitignore", "!y.py\n/b/c/z.py\n")
    tree_of("a/.gitignore/odd", "")
    tree_of("b/.gitignore", "**/v.py\n")
    tree_of("b/c/.gitignore", "!v.py\n")
    tree_of("patterns", "w.py\n")
    (tmp_path / "a/b").mkdir()
    (tmp_path / "a/b/.gitignore").symlink_to("../../patterns")
    for folder in (".", "a", "a/b", "b", "b/c"):
        for name in "vwxyz":
            tree_of(f"{folder}/{name}.py", "")
    (tmp_path.parent / f"{tmp_path.name}-link").symlink_to(tmp_path)
    command = ["git", "ls-files", "-z", "-o", "--exclude-standard"]

    for folder in (".", "a", "b", "b/c"):
        for root in (tmp_path, tmp_path.parent / f"{tmp_path.name}-link"):
            shown = subprocess.run(command, cwd=tmp_path / folder, capture_output=True, check=True).stdout.decode()
            found = search([str(root / folder)], Config())

            assert {os.path.relpath(path, root / folder) for path in found.files} == {
                name for name in shown.split("\0") if name.endswith(".py")
            }
            assert found.notes == []


@pytest.fixture
def tree_of(tmp_path):
    """A repository, and what writes a file in it."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)

    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    return write


def test_byte_order_mark_and_carriage_returns_are_not_part_of_a_pattern():
    patterns = patterns_of(b"\xef\xbb\xbfa.py\r\nb.py\r\n")

    assert [patterns.ignores([name], is_folder=False) for name in ("a.py", "b.py", "c.py")] == [True, True, None]


def test_matching_does_not_backtrack_over_stars():
    """Each piece between stars stays where it first matches."""
    for pattern in ("*a" * 22 + "b", "?*" * 60 + "b", "*" * 5000 + "b", "[a]*" * 100 + "b", "*a*" * 50):
        patterns_of(pattern.encode()).ignores(["a" * 200], is_folder=False)
        shape = _expression(pattern).pattern
        assert shape.count(".*") == shape.count("(?=(.*?") + 1
    for pattern in ("**/a/" * 100 + "b", "a/**/" * 500 + "b"):
        patterns_of(pattern.encode()).ignores(["a"] * 200, is_folder=False)


def test_a_pattern_longer_than_any_name_matches_nothing():
    assert patterns_of(b"?" * 100_000 + b"*").ignores(["a" * 255], is_folder=False) is None
