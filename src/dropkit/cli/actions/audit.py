"""What `dropkit audit` does: load a model, audit it, and print the report."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import click
import torch
from torch import Tensor, nn

from dropkit import files
from dropkit.auditor import Auditor, Report
from dropkit.cli.actions.model_loading import load_object, make_model, must_be_module, user_code
from dropkit.cli.options import CLEAN, FAILED, FOUND, Failed, is_terminal, must_lie_in_a_folder, wants_color
from dropkit.diagnostics import Severity
from dropkit.report.progress import Progress

_INPUT = re.compile(r"(\d+(?:x\d+)*)?(?::(\w+))?")
# Random integers are 0 or 1, which are valid classes and tokens for any model.
_MAX_INTEGER = 2
_BATCH = 8


def audit(
    model: str,
    shapes: tuple[str, ...],
    batch: int | None,
    inputs: str | None,
    ignore: tuple[str, ...] | None,
    severity: str,
    wide: bool,
    full: bool,
    as_json: bool,
    html: str | None,
    color: str,
) -> int:
    """Run the audit and print it; return the exit code."""
    auditor = _auditor(ignore or ())
    _check_inputs(shapes, inputs)
    if html is not None:
        must_lie_in_a_folder(html, "--html")
    with user_code(model):
        loaded = make_model(load_object(model, "MODEL"), model)
    with user_code(inputs or ""):
        candidates = [[_load_inputs(inputs)]] if inputs is not None else _random_inputs(shapes, batch)
    network = must_be_module(loaded)
    with Progress("running the model in both modes", visible=not as_json and is_terminal(sys.stderr)):
        report = _audit(auditor, network, candidates)
    if html is not None:
        _write(html, report.to_html())
    colored = wants_color(color)
    text = json.dumps(report.to_dict(), indent=2) if as_json else report.table(None, colored, wide=wide, full=full)
    click.echo(text, color=colored)
    most_severe = min((finding.severity.rank for finding in report.findings), default=len(Severity))
    if most_severe <= Severity(severity).rank:
        return FOUND
    return CLEAN if report.stopped is None else FAILED


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


def _check_inputs(shapes: tuple[str, ...], inputs: str | None) -> None:
    """Check the options before anything is imported."""
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


def _random_inputs(shapes: tuple[str, ...], batch: int | None) -> list[list[Tensor]]:
    """Return what the shapes may mean: with a batch size before them, or, if none is given, as they are."""
    with_batch = [_random(shape, (batch or _BATCH,)) for shape in shapes]
    return [with_batch] if batch is not None else [with_batch, [_random(shape, ()) for shape in shapes]]


def _random(text: str, batch: tuple[int, ...]) -> Tensor:
    """Return random numbers of a shape behind the batch size."""
    sizes, dtype = _shape_of(text)
    shape = (*batch, *sizes)
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=dtype)
    return torch.randint(_MAX_INTEGER, shape, generator=generator).to(dtype)


def _load_inputs(target: str) -> Any:
    """Return the user's batch, or what the user's function returns."""
    loaded = load_object(target, "--inputs")
    return loaded() if callable(loaded) and not isinstance(loaded, nn.Module) else loaded


def _audit(auditor: Auditor, network: nn.Module, candidates: list[list[Any]]) -> Report:
    """Audit with the first inputs that the model accepts."""
    failed: Exception | SystemExit | None = None
    for args in candidates:
        try:
            return auditor.audit(network, *args)
        except (Exception, SystemExit) as error:
            failed = failed or error
    shapes = [", ".join(str(tuple(arg.shape)) for arg in args if isinstance(arg, Tensor)) for args in candidates]
    hint = f" (with inputs of shape {', nor '.join(shapes)})" if any(shapes) else ""
    if "Long, Int" in str(failed):
        hint += "; give tokens as integers, as in --input 16:int64"
    raise Failed(f"the model could not be run{hint}: {type(failed).__name__}: {failed}") from failed
