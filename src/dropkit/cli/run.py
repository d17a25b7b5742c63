"""`dropkit run`: an unchanged program, with torch's dropout on dropkit's kernels."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import click

from dropkit.patch.run_script import STDIN, run


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-m", "as_module", is_flag=True, help="SCRIPT is the name of a module, as for `python -m`.")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(as_module: bool, script: str, arguments: tuple[str, ...]) -> Callable[[], None]:
    """Run SCRIPT with ARGUMENTS as `python SCRIPT ARGUMENTS` would, with torch's dropout on dropkit's kernels.

    SCRIPT is a file, a folder or zip file with a __main__.py, or - for standard input. Nothing else changes: sys.argv,
    __main__, the exit code and tracebacks are the program's. Child processes by multiprocessing are reached, too.
    """
    if not as_module and script != STDIN and not os.path.isdir(script):
        try:
            open(script, "rb").close()
        except OSError as error:
            raise click.UsageError(f"can't open file {os.path.abspath(script)!r}: {error.strerror}") from None
    return partial(run, script, arguments, as_module)
