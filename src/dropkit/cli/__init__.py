"""The command line: one module for each command, imported when it runs, so that `--help` needs no torch."""

from __future__ import annotations

import gc
import importlib
import io
import sys
from typing import Any

import click

# Names and descriptions, in the order of `--help`. The command <name> is dropkit.cli.<name>.command.
COMMANDS = {
    "audit": "Run a model once; list its dropout and what is wrong with it.",
    "check": "Find and fix dropout bugs in source code.",
    "explain": "Explain a rule of check and audit, or list all rules.",
    "kernels": "Show which kernels are used on this machine.",
    "mc": "Predict with uncertainty by Monte Carlo dropout.",
    "run": "Run a script with torch's dropout on dropkit's kernels.",
    "server": "Run the language server for editors.",
    "study": "Train a model with and without dropout; say which kind, where and at what rate.",
    "tune": "Search for a dropout rate for each site of a model.",
    "worker": "Train trials of a study that another machine coordinates.",
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
        # Not from the commands, which import torch.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        import dropkit

        click.echo(f"dropkit {dropkit.__version__}")
        ctx.exit()


def main() -> None:
    """Run the command line. A function that a command returns is called here, outside of click's error handling."""
    try:
        returned = _group.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    if callable(returned):
        returned()
    elif isinstance(returned, int):
        # Python collects garbage as it ends, for nothing: a tenth of the time of `dropkit check` on one file.
        gc.freeze()
        sys.exit(returned)


@click.group("dropkit", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
@click.pass_context
def _group(context: click.Context) -> None:
    """Dropout for PyTorch: fast layers, a linter, a runtime audit and Monte Carlo dropout."""
    # File names and source may contain characters that the terminal cannot encode. Scripts keep their own setting.
    if context.invoked_subcommand != "run" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
