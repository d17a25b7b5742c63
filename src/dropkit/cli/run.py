"""`dropkit run`: run an unchanged program with torch's dropout on dropkit's kernels."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import click

from dropkit.cli.options import Command
from dropkit.extras import must_be_installed


@click.command("run", cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-m", "as_module", is_flag=True, help="Run the module named SCRIPT, as `python -m` does.")
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(as_module: bool, script: str, arguments: tuple[str, ...]) -> Callable[[], None]:
    """Run SCRIPT with ARGUMENTS as Python would, with torch's dropout on dropkit's kernels.

    SCRIPT is a file, a folder or zip file with a __main__.py, or - for standard input. sys.argv, __main__, the exit
    code and tracebacks are as under Python. Child processes of multiprocessing are included.
    """
    from dropkit.patch.run_script import STDIN, run

    # The script runs outside of this function, where a missing torch would be a traceback.
    must_be_installed("dropkit run", "torch", "torch")
    if not as_module and script != STDIN and not os.path.isdir(script):
        try:
            open(script, "rb").close()
        except OSError as error:
            raise click.UsageError(f"can't open file {os.path.abspath(script)!r}: {error.strerror}") from None
    return partial(run, script, arguments, as_module)
