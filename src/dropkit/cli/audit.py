"""`dropkit audit`: run a model and show every dropout in it, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import click

from dropkit.cli.options import Command, codes_option
from dropkit.diagnostics import Severity


@click.command("audit", cls=Command)
@click.argument("model", metavar="FILE.py:NAME")
@click.option(
    "--input",
    "shapes",
    multiple=True,
    metavar="SHAPE[:DTYPE]",
    help="Shape of a random input: 1x28x28, 16:int64, or with the batch size: 4x1x28x28. Repeat for further inputs.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), help="Batch size of shapes that are given without it. [default: 8]"
)
@click.option(
    "--inputs",
    metavar="FILE.py:NAME",
    help="A batch, or a function that returns one: a tensor, a tuple, a dict with names of forward's arguments, "
    "or what a data loader yields.",
)
@codes_option("--ignore", help="Rules to skip: DRP407,DRP2.")
@click.option(
    "--severity",
    type=click.Choice([severity.value for severity in Severity]),
    default="warning",
    show_default=True,
    help="Minimum severity that makes the command fail.",
)
@click.option("--wide", is_flag=True, help="Show all columns of the table, however long lines become.")
@click.option("--full", is_flag=True, help="Show each site of equal layers in its own row, and sites with rate 0.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--html", type=click.Path(dir_okay=False), help="Also write the report to this HTML page.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
def command(**options: Any) -> int:
    """Run a model and show every dropout in it, functional ones too, and what is wrong with it.

    FILE.py:NAME (or package.module:NAME) is a module, or a class or function that makes one when called without
    arguments. It runs forward and backward in training mode, then forward in evaluation mode.

    Exit code: 0 without findings of the minimum severity, 1 with findings, 2 if the audit failed.
    """
    from dropkit.cli.actions.audit import audit

    return audit(**options)
