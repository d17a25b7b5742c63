"""`dropkit server`: the checker for editors, over standard input and output."""

from __future__ import annotations

import importlib

import click


@click.command()
def command() -> None:
    """Serve an editor: diagnostics, quick fixes and `source.fixAll.dropkit`, by the Language Server Protocol.

    Needs pygls: pip install "dropkit[editor]".
    """
    try:
        server = importlib.import_module("dropkit.lint.engine.language_server")
    except ModuleNotFoundError as error:
        if error.name not in ("pygls", "lsprotocol"):
            raise
        raise click.ClickException('this command needs pygls: pip install "dropkit[editor]"') from error
    server.create().start_io()
