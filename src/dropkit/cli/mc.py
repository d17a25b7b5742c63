"""`dropkit mc`: predict with uncertainty from a model and data, and compare with the truth where it is known."""

from __future__ import annotations

import json
import math
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
from dropkit.cli import mc_json
from dropkit.cli.checkpoint import load_model
from dropkit.cli.data_loading import TruthCollector, checked_truth, load_data, require_package
from dropkit.cli.model_loading import Failed
from dropkit.cli.options import must_lie_in_a_folder, wants_color
from dropkit.mc import NothingToSample, Prediction, predict
from dropkit.mc import page as mc_page
from dropkit.mc import summary as mc_summary
from dropkit.mc import table as mc_table
from dropkit.mc.selection import MOST_NUMBERS

_CHOICES = {
    "--task": ("classification", "regression"),
    "--masks": ("input", "chunk", "shared"),
    "--plan": ("iid", "stratified"),
    "--outputs": ("logits", "probabilities"),
    "--measures": ("all", "basic"),
    "--color": ("auto", "always", "never"),
}
# A function that makes a model may load weights itself.
_NO_WEIGHTS = (
    "no --weights given: unless the function that makes the model loads weights, they are random, and so are these "
    "predictions"
)


def _choice(name: str, help: str | None = None, has_default: bool = True) -> Any:
    default = _CHOICES[name][0] if has_default else None
    return click.option(name, type=click.Choice(_CHOICES[name]), default=default, show_default=True, help=help)


def _positive(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"must be larger than 0 and finite, got {value}")
    return value


def _seed(context: click.Context, parameter: click.Parameter, value: int) -> int:
    try:
        return random.signed(value, "it")
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("model", metavar="CHECKPOINT|FILE.py:NAME")
@click.option(
    "--data",
    required=True,
    metavar="FILE|FILE.py:NAME",
    help="Inputs: an .npy, .npz or .pt file with x and y, or with the model's arguments by name; or a function that "
    "returns inputs, (inputs, labels) or a loader of such pairs. NumPy floats are converted to the model's dtype.",
)
@click.option("--labels", metavar="FILE", help="True labels or values, instead of those in --data: .npy, .npz or .pt.")
@click.option("--weights", metavar="FILE", help="State dict to load into the model that FILE.py:NAME makes.")
@click.option("--trust", is_flag=True, help="Load a CHECKPOINT that holds a whole module. This runs code in the file.")
@click.option("--samples", type=click.IntRange(min=1), default=50, show_default=True, help="Passes for each input.")
@_choice("--task", "What the model returns: classes or values.")
@_choice(
    "--masks",
    "Which inputs share dropout masks. Default: chunk for classification of many inputs, else input.",
    has_default=False,
)
@_choice(
    "--plan",
    "Independent masks, or stratified ones: each unit is kept equally often over the samples.",
)
@_choice("--outputs", "What a classification model returns. [default: logits]", has_default=False)
@_choice(
    "--measures",
    "All measures with their standard errors, or basic ones, which are as fast as the passes. Default: all where an "
    f"input has at most {MOST_NUMBERS} numbers of output, else basic.",
    has_default=False,
)
@click.option(
    "--class-dim",
    type=int,
    help="Dimension of the classes in the output: -1 for tokens (N, T, C), 1 for pixels (N, C, H, W). Default: 1 for "
    "outputs of two dimensions, else found from the model's configuration or the shape of the labels.",
)
@click.option(
    "--target-standard-error",
    metavar="FLOAT",
    type=float,
    callback=_positive,
    help="Stop sampling an input when the standard error of its mean is at most this.",
)
@click.option("--seed", type=int, default=0, show_default=True, callback=_seed, help="Seed of the masks.")
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Inputs in a pass.")
@click.option(
    "--tau",
    type=float,
    callback=_positive,
    help="Precision of the observation noise (1 / variance), for regression. Default: fitted to the true values.",
)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many of the least certain inputs to show.",
)
@click.option(
    "--jsonl",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write a line of JSON for each input; - writes them to standard output, without the table. Numbers that are "
    f"not finite are null, and so are tensors of more than {mc_json.MOST_NUMBERS} numbers.",
)
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write an HTML page with plots.")
@_choice("--color")
@click.pass_context
def command(
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
    """Predict with uncertainty: run a model many times with dropout active (Monte Carlo dropout).

    FILE.py:NAME (or package.module:NAME) is a module, or a class or function that makes one; CHECKPOINT is a whole
    module saved by torch.save (see --trust).

    Exit code: 0 success, 2 error.
    """
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
            require_package("scipy", "to fit tau to the true values")
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
        require_package("jinja2", "for --html")
        require_package("matplotlib", "for --html")


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
