"""What `dropkit mc` does: load model and data, predict with uncertainty, and compare with the truth."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
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
from dropkit.cli.actions.class_names import names_in_model, names_of_option
from dropkit.cli.actions.data_loading import Loaded, checked_truth, load_data
from dropkit.cli.actions.model_loading import described
from dropkit.cli.options import Failed, must_lie_in_a_folder, wants_color
from dropkit.extras import must_be_installed
from dropkit.mc import NothingToSample, Prediction, predict
from dropkit.mc import page as mc_page
from dropkit.mc import summary as mc_summary
from dropkit.mc import table as mc_table
from dropkit.mc.options import FORMS
from dropkit.mc.returned import VARIANCES, entry

# A function that makes a model may load weights itself.
_NO_WEIGHTS = (
    "no --weights given: unless the code of the model loads some itself, they are random, and these predictions mean "
    "nothing"
)


def predict_and_compare(
    context: click.Context,
    model: str,
    data: str,
    labels: str | None,
    weights: str | None,
    trust: bool,
    samples: int,
    classes: str | None,
    tau: float | None,
    top: int,
    json_path: str | None,
    jsonl: str | None,
    html: str | None,
    color: str,
    **settings: Any,
) -> int:
    """Predict, compare with the truth and print; return the exit code."""
    _check_options(context)
    names = None if classes is None else names_of_option(classes)
    is_quiet = "-" in (jsonl, json_path)
    # What the user's code prints must not mix with the JSON.
    with redirect_stdout(sys.stderr) if is_quiet else nullcontext():
        network, notes = load_model(model, weights, trust)
        warnings = () if weights is not None or model.endswith(TORCH) else (_NO_WEIGHTS,)
        loaded = load_data(data, labels, network, settings["task"])
        for warning in warnings:
            click.secho(f"warning: {warning}", err=True, bold=True, fg="yellow")
        is_fitted = settings["task"] == "regression" and settings["outputs"] not in VARIANCES and tau is None
        if is_fitted and loaded.truth is not None:
            must_be_installed("fitting tau to the true values", "mc", "scipy")
        prediction = _predict(network, loaded, samples, settings)
    truth = loaded.truth
    if loaded.collector is not None and truth is None:
        truth = checked_truth(loaded.collector.joined(), settings["task"], "--data", len(prediction))
    truth = None if truth is None else _reshaped(truth, prediction)
    prediction = replace(prediction, notes=(*notes, *(_in_options(note) for note in prediction.notes)))
    prediction = mc_summary.with_notes(prediction, is_fitted and truth is not None)
    summary = mc_summary.Summary(prediction, truth, None, top, warnings=warnings)
    summary = replace(summary, classes=_names(names, loaded.classes or names_in_model(network), summary))
    if jsonl is not None:
        _write(jsonl, (json.dumps(record, allow_nan=False) + "\n" for record in mc_json.records(summary)))
    try:
        summary = replace(summary, report=mc_summary.report(prediction, truth, tau))
    except (ValueError, TypeError, ImportError) as error:
        raise Failed(f"the prediction cannot be compared with the truth: {error}") from error
    if json_path is not None:
        document = mc_json.document(summary, context.params)
        _write(json_path, [json.dumps(document, allow_nan=False) + "\n"])
    if not is_quiet:
        is_colored = wants_color(color)
        click.echo(mc_table.table(summary, is_colored), color=is_colored)
    if html is not None:
        images = loaded.inputs if loaded.collector is None else loaded.collector.images
        _write(html, [mc_page.page(replace(summary, inputs=images), model)])
    return 0


def _check_options(context: click.Context) -> None:
    """Raise an error for wrong options, before anything is imported or run."""
    given = context.params
    try:
        random.signed(given["seed"], "it")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--seed'") from error
    for option, name in (("html", "html"), ("jsonl", "jsonl"), ("json_path", "json")):
        path = given[option]
        if path not in (None, "-"):
            must_lie_in_a_folder(path, f"--{name}")
    if given["json_path"] == given["jsonl"] == "-":
        raise click.UsageError("--json and --jsonl cannot both write to standard output")
    if given["target_standard_error"] is not None and given["plan"] == "stratified":
        raise click.UsageError("--target-standard-error needs --plan iid: stratified samples end together")
    task, form = given["task"], given["outputs"]
    has_classes = task != "regression"
    meaningless = ["tau"] if has_classes else ["classes", "ignore_index"]
    meaningless += ["class_dim"] if task == "multilabel" or not (has_classes or form in VARIANCES) else []
    for name in meaningless:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} has no meaning with --task {task}")
    if form not in (None, *FORMS[task]):
        raise click.UsageError(f"--outputs must be {', '.join(FORMS[task])} with --task {task}, got {form}")
    if given["html"] is not None:
        must_be_installed("--html", "mc", "jinja2", "matplotlib")


def _predict(network: nn.Module, loaded: Loaded, samples: int, settings: dict[str, Any]) -> Prediction:
    settings = dict(settings)
    is_regression, output = settings["task"] == "regression", settings.pop("output")
    inputs = loaded.inputs
    try:
        return cast("Any", predict)(
            network,
            inputs,
            samples,
            keep_samples=is_regression and settings["outputs"] not in VARIANCES,
            prepare_batch=loaded.collector,
            labels=None if is_regression else loaded.truth,
            output=None if output is None else _reader(output),
            **settings,
        )
    except NothingToSample as error:
        raise Failed(f"{error}; on the command line: dropkit audit") from error
    except (Exception, SystemExit) as error:
        named = cast("Mapping[str, Any]", inputs) if isinstance(inputs, Mapping) else {"": inputs}
        parts = cast("tuple[Any, ...]", inputs) if isinstance(inputs, tuple) else named.values()
        shapes = ", ".join(str(tuple(part.shape)) for part in parts if isinstance(part, Tensor))
        shown = f" with inputs of shape {shapes}" if shapes else ""
        raise Failed(f"the model could not be run{shown}: {_in_options(described(error))}") from error


def _reader(name: str) -> Callable[[Any], Any]:
    """Return the function that takes the output of this name, or of this number, from what a model returns."""
    is_number = re.fullmatch(r"-?\d+", name) is not None

    def read(returned: Any) -> Any:
        return entry(returned, int(name) if is_number and isinstance(returned, (tuple, list)) else name, "output")

    return read


# What to print for arguments in Python that errors and notes name, by patterns.
_OPTIONS_OF_ARGUMENTS = {
    r"name those to predict: task=\{(.*)\}, or see output=": r"choose one by --output: \1",
    r'"(\w+)": \.\.\.': r"\1",
    r"task=\{0: \.\.\., 1: \.\.\.\} predicts several": "--output 1 takes the second",
    r"see output=": "see --output",
    r" \(output=\.\.\.\)": "",
    r'\b(task|outputs|measures)="(\w+)"': r"--\1 \2",
    r"class_dim=(-?\d)": r"--class-dim \1",
    r"give output=lambda y:": "let the model return, of its output y,",
    r"output=lambda y:": "a model that returns, of its output y,",
}


def _in_options(message: str) -> str:
    """The text of an error or a note, with options in place of arguments."""
    for argument, option in _OPTIONS_OF_ARGUMENTS.items():
        message = re.sub(argument, option, message)
    found = re.match(r"(?:\w+: )?(class_dim|outputs?) must ", message)
    if found is None or (found[1] == "outputs" and "multilabel" in message):
        return message
    return f"{message}; on the command line: --{found[1].replace('_', '-')}"


def _names(given: list[str] | None, found: list[str] | None, summary: mc_summary.Summary) -> list[str] | None:
    """The names of the classes: those that were given, or found where they are as many as the classes."""
    if given is not None:
        try:
            mc_page.must_name_every_class(replace(summary, classes=given))
        except ValueError as error:
            raise click.UsageError(f"--{error}") from error
        return given
    return found if found is not None and len(found) == mc_page.count_of_classes(summary.prediction) else None


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
