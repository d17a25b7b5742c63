"""Options of dropkit check that exclude each other, and those that do not."""

import click
import pytest
from helpers.lint import BAD, dropkit

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
def test_options_that_would_be_ignored_are_an_error(project, arguments):
    """No file is read or written."""
    with pytest.raises(click.UsageError, match="must"):
        dropkit(*arguments, input=BAD)

    assert sorted(path.name for path in project.iterdir()) == ["net.py", "pyproject.toml"]
    assert (project / "net.py").read_text() == BAD


@pytest.mark.parametrize("given", [["--fix", "--diff"], ["-", "--fix", "--diff"], ["--fix", "-oout"], ["-", "-oout"]])
def test_options_that_go_together_do(project, given):
    assert dropkit(*given, input=BAD)[0] in (0, 1)
