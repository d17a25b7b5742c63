"""What `dropkit mc` does: load model and data, predict with uncertainty, and compare with the truth."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from typing import Any, cast

import click
from click.core import ParameterSource
from torch import Tensor, nn

from dropkit import files, random
from dropkit.array_files import TORCH
from dropkit.cli.actions import mc_json
from dropkit.cli.actions.checkpoint import load_model
from dropkit.cli.actions.data_loading import TruthCollector, checked_truth, load_data
from dropkit.cli.options import Failed, must_lie_in_a_folder, wants_color
from dropkit.extras import must_be_installed
from dropkit.mc import NothingToSample, Prediction, predict
from dropkit.mc import page as mc_page
from dropkit.mc import summary as mc_summary
from dropkit.mc import table as mc_table

# A function that makes a model may load weights itself.
_NO_WEIGHTS = (
    "no --weights given: unless the function that makes the model loads weights, they are random, and so are these "
    "predictions"
)


def predict_and_compare(
    context: click.Context,
    model: str,
    data: str,
    labels: str | None,
    weights: str | None,
    trust: bool,
    samples: int,
    tau: float | None,
    top: int,
    jsonl: str | None,
    html: str | None,
    color: str,
    **settings: Any,
) -> int:
    """Predict, compare with the truth and print; return the exit code."""
    _check_options(context)
    # What the user's code prints must not mix with the JSON.
    with redirect_stdout(sys.stderr) if jsonl == "-" else nullcontext():
        network = load_model(model, weights, trust)
        warning = None if weights is not None or model.endswith(TORCH) else _NO_WEIGHTS
        if warning is not None:
            click.echo(f"warning: {warning}", err=True)
        inputs, truth = load_data(data, labels, network, settings["task"])
        is_fitted = settings["task"] == "regression" and truth is not None and tau is None
        if is_fitted and isinstance(truth, Tensor):
            must_be_installed("fitting tau to the true values", "mc", "scipy")
        prediction = _predict(network, inputs, truth, samples, settings)
    if isinstance(truth, TruthCollector):
        truth = checked_truth(truth.joined(), settings["task"], "--data", len(prediction))
    truth = None if truth is None else _reshaped(truth, prediction)
    prediction = mc_summary.with_notes(prediction, is_fitted and truth is not None)
    # The terminal has shown the warning already.
    written_prediction = prediction if warning is None else replace(prediction, notes=(warning, *prediction.notes))
    if jsonl is not None:
        _write(
            jsonl,
            (json.dumps(record, allow_nan=False) + "\n" for record in mc_json.records(written_prediction, truth)),
        )
    try:
        report = mc_summary.report(prediction, truth, tau)
    except (ValueError, TypeError, ImportError) as error:
        raise Failed(f"the prediction cannot be compared with the truth: {error}") from error
    if jsonl != "-":
        is_colored = wants_color(color)
        summary = mc_summary.Summary(prediction, truth, report, top)
        click.echo(mc_table.table(summary, is_colored), color=is_colored)
    if html is not None:
        _write(html, [mc_page.page(mc_summary.Summary(written_prediction, truth, report, top), model)])
    return 0


def _check_options(context: click.Context) -> None:
    """Raise an error for wrong options, before anything is imported or run."""
    options = context.params
    try:
        random.signed(options["seed"], "it")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--seed'") from error
    for option in ("html", "jsonl"):
        path = options[option]
        if path not in (None, "-"):
            must_lie_in_a_folder(path, f"--{option}")
    if options["target_standard_error"] is not None and options["plan"] == "stratified":
        raise click.UsageError("--target-standard-error needs --plan iid: stratified samples end together")
    for name in ("tau",) if options["task"] == "classification" else ("outputs", "class_dim"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} has no meaning with --task {options['task']}")
    if options["html"] is not None:
        must_be_installed("--html", "mc", "jinja2", "matplotlib")


def _predict(network: nn.Module, inputs: Any, truth: Any, samples: int, settings: dict[str, Any]) -> Prediction:
    keep_samples = settings["task"] == "regression"
    prepare_batch = truth if isinstance(truth, TruthCollector) else None
    labels = truth if isinstance(truth, Tensor) and not keep_samples else None
    try:
        return cast("Any", predict)(
            network,
            inputs,
            samples,
            keep_samples=keep_samples,
            prepare_batch=prepare_batch,
            labels=labels,
            **settings,
        )
    except NothingToSample as error:
        raise Failed(f"{error}; on the command line: dropkit audit") from error
    except (Exception, SystemExit) as error:
        named = cast("Mapping[str, Any]", inputs) if isinstance(inputs, Mapping) else {"": inputs}
        parts = cast("tuple[Any, ...]", inputs) if isinstance(inputs, tuple) else named.values()
        shapes = ", ".join(str(tuple(part.shape)) for part in parts if isinstance(part, Tensor))
        shown = f" with inputs of shape {shapes}" if shapes else ""
        raise Failed(f"the model could not be run{shown}: {type(error).__name__}: {_in_options(error)}") from error


# What to print for arguments in Python that errors name.
_OPTION_OF_ARGUMENT = {
    " (output=...)": "",
    'task="multilabel"': "--task multilabel",
    'outputs="probabilities"': "--outputs probabilities",
    'task="regression"': "--task regression",
    "give output=lambda y:": "let the model return, of its output y,",
    "output=lambda y:": "a model that returns, of its output y,",
}


def _in_options(error: BaseException) -> str:
    """The text of an error, with options in place of arguments."""
    message = str(error)
    for argument, option in _OPTION_OF_ARGUMENT.items():
        message = message.replace(argument, option)
    argument = message.partition(" ")[0]
    if argument not in ("class_dim", "outputs") or (argument == "outputs" and "multilabel" in message):
        return message
    return f"{message}; on the command line: --{argument.replace('_', '-')}"


def _reshaped(truth: Tensor, prediction: Prediction) -> Tensor:
    """Give the truth the shape of the prediction, if they differ only in trailing dimensions of size 1."""
    shape = prediction.label_shape
    is_same = _without_trailing_ones(truth.shape) == _without_trailing_ones(shape)
    return truth.reshape(shape) if is_same else truth


def _without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return _without_trailing_ones(shape[:-1]) if len(shape) > 1 and shape[-1] == 1 else tuple(shape)


def _write(path: str, parts: Iterable[str]) -> None:
    try:
        if path == "-":
            sys.stdout.writelines(parts)
        else:
            files.write(path, "".join(parts).encode(errors="backslashreplace"))
    except BrokenPipeError:
        raise  # the reader of the pipe, such as head, has ended
    except OSError as error:
        raise Failed(f"{path} could not be written: {files.reason(error)}") from error
