"""`dropkit kernels`: show which kernel runs on which device and dtype, and why if it is a slow one."""

from __future__ import annotations

import click

from dropkit.cli.options import Command


@click.command("kernels", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show which kernel runs on which device and dtype, and the CPU instruction set in use.

    Set DROPKIT_CPU_LEVEL to choose another instruction set of this machine.
    """
    from dropkit.cli.actions.kernels import show_kernels

    show_kernels(as_json)
