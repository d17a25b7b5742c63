"""What several commands take in the same way."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import click


def split(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> tuple[str, ...] | None:
    """Codes apart, which may be given with commas or one by one; None if there are none."""
    codes = tuple(code.strip() for one in value for code in one.split(",") if code.strip())
    return codes or None


def named(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A path as it was given; one without any character names nothing."""
    if value == "":
        raise click.BadParameter("must be a path, got ''")
    return value


def counted(number: int, noun: str) -> str:
    """`1 finding`, `2 findings`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# What `dropkit check` does with what it finds. --diff shows what --fix does; of all others only one can be done.
_TASKS = ("fix", "diff", "add_noqa", "write_baseline", "show_files", "watch")
# How a report is given, which these tasks do not print.
_REPORTS = ("output_file", "statistics")
_WITHOUT_REPORT = ("diff", "add_noqa", "write_baseline", "show_files")


def must_go_together(given: Mapping[str, Any], from_stdin: bool) -> None:
    """Check the options of `dropkit check` before any file is read.

    Raises:
        click.UsageError: one of them would be passed over because of another.
    """
    tasks = [name for name in _TASKS if given[name]]
    reports = [name for name in _REPORTS if given[name]]
    if len(tasks) > 1 and tasks != ["fix", "diff"]:
        raise click.UsageError(f"{_option(tasks[0])} and {_option(tasks[1])} must not be given together")
    for task in tasks:
        if from_stdin and task not in ("fix", "diff"):
            raise click.UsageError(f"{_option(task)} must be given files or folders, got standard input")
        if reports and (task in _WITHOUT_REPORT or from_stdin):
            where = " of standard input" if from_stdin else ""
            raise click.UsageError(f"{_option(reports[0])} must not be given with {_option(task)}{where}")
    if given["stdin_filename"] and not from_stdin:
        raise click.UsageError("--stdin-filename must be given with standard input (-), got other paths")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def wants_color(choice: str) -> bool:
    """Whether standard output is to be coloured, by `--color`, the terminal and NO_COLOR."""
    return choice == "always" or (choice == "auto" and is_terminal(sys.stdout) and not os.environ.get("NO_COLOR"))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream, which may be closed, leads to a terminal."""
    return stream is not None and stream.isatty()


def must_lie_in_a_folder(path: str, hint: str) -> None:
    """Said before the work is done that would be lost.

    Raises:
        click.BadParameter: the file could not be written, for its folder is missing.
    """
    if not Path(path).resolve().parent.is_dir():
        raise click.BadParameter(f"must lie in a folder that exists, got {path!r}", param_hint=hint)
