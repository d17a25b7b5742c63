"""Options and checks that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click
from click.shell_completion import CompletionItem

from dropkit.extras import MissingPackage, needed_for

F = TypeVar("F", bound=Callable[..., Any])

# Exit codes of `dropkit check` and `dropkit audit`.
CLEAN, FOUND, FAILED = 0, 1, 2


class Failed(click.ClickException):
    """An error that is not in the options: in the user's code, model or data, or in what is installed."""

    exit_code = FAILED

    def __init__(self, message: str) -> None:
        # Errors of models and of torch have several lines.
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


class Command(click.Command):
    """A command that reports a missing package in one line, with the command that installs it."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with needed_for(f"dropkit {self.name}", "torch", only="torch"):
                return super().invoke(ctx)
        except MissingPackage as error:
            raise Failed(str(error)) from error


def split(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> tuple[str, ...] | None:
    """Split comma-separated or repeated values; None if there are none."""
    values = tuple(part.strip() for item in value for part in item.split(",") if part.strip())
    return values or None


def complete_codes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the last of comma-separated codes of rules."""
    from dropkit.rules import RULES

    before, comma, code = incomplete.rpartition(",")
    rules = [rule for rule in RULES if rule.code.startswith(code.upper())]
    return [CompletionItem(before + comma + rule.code, help=rule.name) for rule in rules]


def codes_option(name: str, help: str) -> Callable[[F], F]:
    """Declare an option that takes codes of rules."""
    return click.option(name, multiple=True, callback=split, metavar="CODES", shell_complete=complete_codes, help=help)


def not_empty(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Reject an empty path."""
    if value == "":
        raise click.BadParameter("must be a path, got ''")
    return value


def wants_color(choice: str) -> bool:
    """Whether to colour standard output, by `--color`, the terminal and NO_COLOR."""
    return choice == "always" or (choice == "auto" and is_terminal(sys.stdout) and not os.environ.get("NO_COLOR"))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream, which may be closed, is a terminal."""
    return stream is not None and stream.isatty()


def must_lie_in_a_folder(path: str, hint: str) -> None:
    """Check that the folder of an output file exists, before the work whose result would be lost.

    Raises:
        click.BadParameter: it does not.
    """
    if not Path(path).resolve().parent.is_dir():
        raise click.BadParameter(f"must lie in a folder that exists, got {path!r}", param_hint=hint)
