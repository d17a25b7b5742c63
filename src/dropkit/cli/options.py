"""What several commands take in the same way."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click


def split(context: click.Context, parameter: click.Parameter, value: Sequence[str]) -> tuple[str, ...] | None:
    """Codes apart, which may be given with commas or one by one; None if there are none."""
    codes = tuple(code.strip() for one in value for code in one.split(",") if code.strip())
    return codes or None


def wants_color(choice: str) -> bool:
    """Whether standard output is to be coloured, by `--color`, the terminal and NO_COLOR."""
    return choice == "always" or (choice == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def must_lie_in_a_folder(path: str, hint: str) -> None:
    """Said before the work is done that would be lost.

    Raises:
        click.BadParameter: the file could not be written, for its folder is missing.
    """
    if not Path(path).resolve().parent.is_dir():
        raise click.BadParameter(f"must lie in a folder that exists, got {path!r}", param_hint=hint)
