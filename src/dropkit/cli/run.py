"""`dropkit run`: an unchanged script, with torch's dropout on dropkit's kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import click

from dropkit.replace.script import run_script


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("script", type=click.Path(exists=True, dir_okay=False, readable=True))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(script: str, arguments: tuple[str, ...]) -> Callable[[], None]:
    """Run SCRIPT with ARGUMENTS as `python SCRIPT ARGUMENTS` would, with torch's dropout on dropkit's kernels.

    Nothing else changes: sys.argv, __main__, the exit code and tracebacks are the script's.
    """
    return partial(run_script, script, arguments)
