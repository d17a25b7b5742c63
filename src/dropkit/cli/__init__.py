"""The command line: one module for each command, imported when it is named.

What needs torch is in `actions`, so that help and completion do without.
"""

from __future__ import annotations

import gc
import importlib
import io
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from dropkit.arguments import did_you_mean

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
        return importlib.import_module(f"dropkit.cli.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS)
            ctx.fail(f"COMMAND must be one of {', '.join(COMMANDS)}, got {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # Not from the commands, whose imports take time.
        found = [CompletionItem(name, help=help) for name, help in COMMANDS.items() if name.startswith(incomplete)]
        return found if not incomplete.startswith("-") else super().shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Not from the commands, whose imports take time.
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
