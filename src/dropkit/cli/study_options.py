"""Options that `dropkit study`, `dropkit tune` and `dropkit worker` share: models, data, and how models are trained."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import click

from dropkit.cli.options import Command, F

# Folders, if none is given; the next study goes to one with a number behind its name.
STUDY_FOLDER, TUNE_FOLDER = "dropkit-study", "dropkit-tune"
# Each worker takes about 550 MB with torch and the digits.
MAX_WORKERS = 8
# As many as fit into a minute and a half on two cores.
DIGITS_SEEDS = 6
STORAGE_FORMS = "journal:FILE, grpc://HOST:PORT, or the URL of a database such as postgresql://HOST/NAME"

_TYPED = "dropkit.typed"


class Option(click.Option):
    """An option that `Command` lists below the heading `group`."""

    def __init__(self, *args: Any, group: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.group = group


class GroupedCommand(Command):
    """A command whose help lists its options by group, and that keeps its arguments in `context.meta`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and keep what was typed."""
        ctx.meta[_TYPED] = list(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group, in the order of the options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", "Other"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


def option(group: str, *names: str, **settings: Any) -> Callable[[F], F]:
    """Declare an option of a group."""
    return click.option(*names, cls=Option, group=group, **settings)


def comma_separated(read: Callable[[str], Any] = str) -> Callable[..., tuple[Any, ...] | None]:
    """Return a callback that splits a value at commas and reads each part."""

    def callback(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[Any, ...] | None:
        if text is None:
            return None
        try:
            return tuple(dict.fromkeys(read(part.strip()) for part in text.split(",")))
        except ValueError:
            raise click.UsageError(f"{parameter.opts[0]} must be numbers separated by commas, got {text!r}") from None

    return callback


def _sizes(context: click.Context, parameter: click.Parameter, text: str | None) -> list[float | None] | None:
    if text is None:
        return None
    try:
        sizes = [None if part.strip() == "rest" else float(part) for part in text.split(",")]
        training, validation, test = sizes
        if validation is None or not all(
            size is None or 0 < size < float("inf") for size in (training, validation, test)
        ):
            raise ValueError
    except ValueError:
        wanted = (
            "three numbers of examples, or fractions below 1, separated by commas, the first or last perhaps `rest`"
        )
        raise click.UsageError(f"--sizes must be {wanted}, got {text!r}") from None
    return sizes


# Those of the readers, which import torch.
_DATA_FORMS = (
    "digits, text, FILE.npz or FILE.pt, npy:INPUTS:TARGETS, csv:FILE:TARGET, FOLDER, idx:IMAGES:LABELS, hf:NAME, "
    "torchvision:NAME"
)
_TRAINING: list[tuple[str, str, dict[str, Any], str]] = [
    ("--epochs", "N", {"type": int}, "Training epochs, at most. [default: 30; digits: 10]"),
    ("--batch-size", "N", {"type": int}, "Examples in a step. [default: 50]"),
    ("--optimizer", "NAME", {}, "sgd (with momentum) or adamw. [default: sgd]"),
    ("--learning-rate", "X", {"type": float}, "Of the first step; it falls to 0. [default: 0.03; digits: 0.06]"),
    ("--weight-decay", "X", {"type": float}, "Of the optimizer. [default: 0]"),
    ("--clip-norm", "X", {"type": float}, "Largest norm of a gradient; 0 for no limit. [default: 5]"),
    (
        "--patience", "N", {"type": int},
        "Stop when the validation loss has not fallen for N epochs, and take the weights of the best one.",
    ),
    (
        "--sizes", "TRAINING,VALIDATION,TEST", {"callback": _sizes},
        "Numbers of examples, or fractions; `rest` for those that are left. Parts that the data states are kept. "
        "[default: rest,0.2,0.2; digits: 500,1000,2500]",
    ),
    ("--samples", "N", {"type": int}, "Passes of Monte Carlo dropout at the end; 0 for none. [default: 10; digits: 5]"),
    ("--device", "NAME", {}, "Such as cuda or cuda:1. [default: cpu]"),
]  # fmt: skip


def typed(context: click.Context) -> str:
    """Return the command as it was typed."""
    return shlex.join(["dropkit", str(context.info_name), *context.meta[_TYPED]])


def model_options(command: F) -> F:
    """Declare MODEL and --data."""
    options = (
        option(
            "Model and data", "--data", "target", metavar="TARGET", default="digits", show_default=True,
            help=f"{_DATA_FORMS}; or FILE.py:NAME, a function that returns a pair of inputs and targets, or a Dataset.",
        ),
        option("Model and data", "--size", type=int, metavar="PIXELS", help="Resize images to this height and width."),
    )  # fmt: skip
    for declare in reversed(options):
        command = declare(command)
    return click.argument("targets", metavar="[MODEL]...", nargs=-1)(command)


def training_options(command: F) -> F:
    """Declare the fields of `Recipe` as options."""
    for names, metavar, settings, help in reversed(_TRAINING):
        command = option("Training", names, metavar=metavar, help=help, **settings)(command)
    return command


def storage_options(group: str) -> Any:
    """Declare --storage and --name."""

    def declare(command: F) -> F:
        command = option(
            group, "--name", metavar="NAME", help="By which workers find it in the storage. [default: from a hash]"
        )(command)
        return option(
            group,
            "--storage",
            metavar="URL",
            help=f"Have trials trained by `dropkit worker`, on any machine that reaches {STORAGE_FORMS}.",
        )(command)

    return declare


@contextmanager
def usage_errors() -> Generator[None]:
    """Report a wrong argument as the option that it came from."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(_in_options(str(error))) from error


def _in_options(message: str) -> str:
    """The text of an error about an argument, with the option in its place."""
    argument, must, rest = message.partition(" must ")
    parameters = click.get_current_context().command.params
    names = {parameter.name: parameter.opts[0] for parameter in parameters if isinstance(parameter, click.Option)}
    option = names.get(argument) or names.get(f"{argument}s")
    return message if option is None else f"{option}{must}{rest}"
