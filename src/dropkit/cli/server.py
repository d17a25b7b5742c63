"""`dropkit server`: the language server for editors, over standard input and output."""

from __future__ import annotations

import importlib

import click


@click.command()
def command() -> None:
    """Run the language server, which gives editors diagnostics, quick fixes and `source.fixAll.dropkit`.

    Needs pygls: pip install "dropkit[editor]".
    """
    try:
        server = importlib.import_module("dropkit.lint.engine.language_server")
    except ModuleNotFoundError as error:
        if error.name not in ("pygls", "lsprotocol"):
            raise
        raise click.ClickException('this command needs pygls: pip install "dropkit[editor]"') from error
    server.create().start_io()
