"""`dropkit server`: the language server for editors, over standard input and output."""

from __future__ import annotations

import importlib

import click

from dropkit.cli.options import Command
from dropkit.extras import needed_for


@click.command("server", cls=Command)
def command() -> None:
    """Run the language server, which gives editors diagnostics, quick fixes and `source.fixAll.dropkit`.

    Needs pygls: pip install "dropkit[editor]".
    """
    with needed_for("dropkit server", "editor"):
        server = importlib.import_module("dropkit.lint.engine.language_server")
    server.create().start_io()
