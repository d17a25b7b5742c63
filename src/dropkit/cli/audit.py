"""`dropkit audit`: run a model once and show every dropout in it, and what is wrong with it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import click
import torch
from torch import Tensor, nn

from dropkit import files
from dropkit.auditor import Auditor, Report
from dropkit.cli.model_loading import FAILED, Failed, called, load, users_own
from dropkit.cli.options import must_lie_in_a_folder, split, wants_color
from dropkit.diagnostics import Severity

_CLEAN, _FOUND = 0, 1
_INPUT = re.compile(r"(\d+(?:x\d+)*)?(?::(\w+))?")
# Integers of an input are below this: classes and tokens that any model has.
_INTEGERS = 2


@click.command()
@click.argument("model", metavar="FILE.py:NAME")
@click.option(
    "--input",
    "shapes",
    multiple=True,
    metavar="SHAPE[:DTYPE]",
    help="Random numbers of this shape, without the batch: 1x28x28, 16:int64. Again for each further input.",
)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Samples in a random input.")
@click.option(
    "--inputs",
    metavar="FILE.py:NAME",
    help="A batch, or a function that returns one: a tensor, a tuple, a dict by the names that forward takes, "
    "what a loader yields ...",
)
@click.option("--ignore", multiple=True, callback=split, metavar="CODES", help="Do not ask these rules: DRP407,DRP2.")
@click.option(
    "--severity",
    type=click.Choice([one.value for one in Severity]),
    default="warning",
    show_default=True,
    help="The least grave finding that makes the exit code 1.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--html", type=click.Path(dir_okay=False), help="Write the report to this page, too.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
def command(
    model: str,
    shapes: tuple[str, ...],
    batch: int,
    inputs: str | None,
    ignore: tuple[str, ...] | None,
    severity: str,
    as_json: bool,
    html: str | None,
    color: str,
) -> int:
    """Show every dropout of a model, functional ones too, and what is wrong with it.

    FILE.py:NAME (or package.module:NAME) is a module, or a class or function that makes one when called without
    arguments. It is run forward and backward in training mode, and forward in evaluation mode.

    Exit code: 0 nothing found (of this severity or graver), 1 something found, 2 the audit could not be done.
    """
    auditor = _auditor(ignore or ())
    _check(shapes, inputs)
    if html is not None:
        must_lie_in_a_folder(html, "--html")
    with users_own(model):
        network = called(load(model, "MODEL"), model)
    with users_own(inputs or ""):
        args = [_given(inputs)] if inputs is not None else [_random(shape, batch) for shape in shapes]
    if not isinstance(network, nn.Module):
        raise click.UsageError(f"MODEL must be or make a torch.nn.Module, got {type(network).__name__}")
    with _waiting(as_json):
        report = _audited(auditor, network, args)
    if html is not None:
        _write(html, report.to_html())
    colored = wants_color(color)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.table(color=colored), color=colored)
    worst = min((finding.severity.rank for finding in report.findings), default=len(Severity))
    if worst <= Severity(severity).rank:
        return _FOUND
    return _CLEAN if report.stopped is None else FAILED


def _write(path: str, page: str) -> None:
    try:
        files.write(path, page.encode(errors="backslashreplace"))
    except OSError as error:
        raise Failed(f"{path} could not be written: {files.reason(error)}") from error


def _auditor(ignore: tuple[str, ...]) -> Auditor:
    try:
        return Auditor(ignore=ignore)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _check(shapes: tuple[str, ...], inputs: str | None) -> None:
    """What can be said before anything is imported."""
    if inputs is not None and shapes:
        raise click.UsageError("give --input or --inputs, not both")
    if inputs is None and not shapes:
        raise click.UsageError("give --input SHAPE, such as --input 1x28x28, or --inputs FILE.py:NAME")
    for shape in shapes:
        _shape_of(shape)


def _shape_of(text: str) -> tuple[list[int], torch.dtype]:
    match = _INPUT.fullmatch(text)
    dtype = getattr(torch, match[2] or "float32", None) if match is not None else None
    if match is None or not isinstance(dtype, torch.dtype):
        raise click.BadParameter(
            f"must be sizes and perhaps a dtype, as in 3x32x32 or 16:int64, got {text!r}", param_hint="--input"
        )
    return [int(size) for size in match[1].split("x")] if match[1] else [], dtype


def _random(text: str, batch: int) -> Tensor:
    """A batch of random numbers; integers are 0 or 1."""
    shape, dtype = _shape_of(text)
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(batch, *shape, generator=generator, dtype=dtype)
    return torch.randint(_INTEGERS, (batch, *shape), generator=generator).to(dtype)


def _given(target: str) -> Any:
    """The inputs that a user's function returns."""
    made = load(target, "--inputs")
    return made() if callable(made) and not isinstance(made, nn.Module) else made


def _audited(auditor: Auditor, network: nn.Module, args: list[Any]) -> Report:
    try:
        return auditor.audit(network, *args)
    except (Exception, SystemExit) as error:
        shapes = ", ".join(str(tuple(one.shape)) for one in args if isinstance(one, Tensor))
        hint = f" (it was given {shapes})" if shapes else ""
        if "Long, Int" in str(error):
            hint += "; tokens are integers, as in --input 16:int64"
        raise Failed(f"the model could not be run{hint}: {type(error).__name__}: {error}") from error


@contextmanager
def _waiting(quiet: bool) -> Generator[None]:
    """A sign of life on the terminal, where there is one."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from dropkit.report.console import console

    with console(stderr=True).status("running the model in both modes"):
        yield
