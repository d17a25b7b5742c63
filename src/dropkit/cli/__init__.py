"""The command line: one file a command, loaded when it is called, so that `--help` needs no torch."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import click

# Name and one line each, in the order of `--help`; the file dropkit.cli.<name> holds the command as `command`.
COMMANDS = {
    "audit": "Run a model once, show every dropout in it and what is wrong.",
    "check": "Find and mend dropout misuse in source code.",
    "explain": "Explain a rule of check and audit, or list all.",
    "kernels": "Show which kernel serves which device, and why.",
    "mc": "Predict with uncertainty, from a model and data.",
    "run": "Run a script with torch's dropout on dropkit's kernels.",
    "server": "Serve an editor by the Language Server Protocol.",
    "study": "Train on real digits with and without dropout, and compare.",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            return importlib.import_module(f"dropkit.cli.{cmd_name}").command
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise click.ClickException('this command needs torch: pip install "dropkit[torch]"') from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table, not from the commands: those import torch.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        import dropkit

        click.echo(f"dropkit {dropkit.__version__}")
        ctx.exit()


def main() -> None:
    """Entry point. A function that a command returns runs here, where click does not touch what it raises."""
    try:
        outcome = _group.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    if callable(outcome):
        outcome()
    elif isinstance(outcome, int):
        sys.exit(outcome)


@click.group("dropkit", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
@click.pass_context
def _group(context: click.Context) -> None:
    """Dropout for PyTorch: kernels, checks and measurements."""
    # What a script prints is its own affair; elsewhere a name or a line of source must not end the command.
    if context.invoked_subcommand != "run" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
