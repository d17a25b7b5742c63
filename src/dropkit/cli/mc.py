"""`dropkit mc`: predict with uncertainty from a model and data, and say how good it is where the truth is known."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from typing import Any, cast

import click
import torch
from click.core import ParameterSource
from torch import Tensor, nn

from dropkit import files, random
from dropkit.cli import mc_summary
from dropkit.cli.data_loading import TORCH, Pairs, checked, either, given, must_exist, need, read
from dropkit.cli.model_loading import Failed, load, make_model, user_code
from dropkit.cli.options import must_lie_in_a_folder, wants_color
from dropkit.mc import ClassPrediction, NothingToSample, Prediction, predict

_CHOICES = {
    "--task": ("classification", "regression"),
    "--masks": ("input", "chunk", "shared"),
    "--plan": ("iid", "stratified"),
    "--outputs": ("logits", "probabilities"),
    "--color": ("auto", "always", "never"),
}
# Whether what makes a model loads weights cannot be seen.
_UNLOADED = (
    "no --weights given: the weights are those of the model as made; unless what makes it loads some, they are random, "
    "and so are these predictions"
)


def _choice(name: str, help: str | None = None, default: bool = True) -> Any:
    chosen = _CHOICES[name][0] if default else None
    return click.option(name, type=click.Choice(_CHOICES[name]), default=chosen, show_default=True, help=help)


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
    help="Inputs: .npy, .npz or .pt, of x and y or of the model's arguments by name; or a function that returns "
    "inputs, (inputs, truth) or a loader of such pairs. Floats of NumPy are given in the dtype of the model.",
)
@click.option("--labels", metavar="FILE", help="The truth, in place of what comes with --data: .npy, .npz or .pt.")
@click.option("--weights", metavar="FILE", help="A state dict for the model that FILE.py:NAME makes.")
@click.option("--trust", is_flag=True, help="Load a CHECKPOINT that holds a whole module, which runs code in it.")
@click.option("--samples", type=click.IntRange(min=1), default=50, show_default=True, help="Passes for each input.")
@_choice("--task", "What the model returns: classes or values.")
@_choice("--masks", "Which inputs share masks. Default: chunk for many inputs of classes, else input.", default=False)
@_choice("--plan", "Independent samples, or stratified ones, which need fewer passes.")
@_choice("--outputs", "What the model returns for classes.")
@click.option(
    "--class-dim",
    type=int,
    help="The dimension of classes in the output: -1 for tokens (N, T, C), 1 for pixels (N, C, H, W). Default: the "
    "second of two dimensions; of more the one that the model's configuration or the shape of the truth tells.",
)
@click.option(
    "--until",
    type=float,
    callback=_positive,
    help="Stop an input once the standard error of its mean is at most this.",
)
@click.option("--seed", type=int, default=0, show_default=True, callback=_seed, help="Of the masks.")
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Inputs in a pass.")
@click.option(
    "--tau",
    type=float,
    callback=_positive,
    help="Precision of the noise, for regression: 1 / variance, in units of the truth. Fitted to the truth without it.",
)
@click.option("--top", type=click.IntRange(min=0), default=10, show_default=True, help="Least certain inputs to show.")
@click.option(
    "--jsonl",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write a line of JSON for each input; - for standard output, and nothing else there. What is not a finite "
    f"number is null, and so are more than {mc_summary.MOST_NUMBERS} numbers in one place.",
)
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write a page with plots.")
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
    """Predict with uncertainty: run a model many times with its dropout on (Monte Carlo dropout).

    FILE.py:NAME (or package.module:NAME) is a module, or a class or function that makes one; CHECKPOINT is a file that
    torch.save wrote of a whole module (see --trust).

    Exit code: 0 done, 2 it could not be done.
    """
    _check(context)
    # What the user's code prints must not stand among the JSON.
    with redirect_stdout(sys.stderr) if jsonl == "-" else nullcontext():
        network = _model(model, weights, trust)
        unloaded = None if weights is not None or model.endswith(TORCH) else _UNLOADED
        if unloaded is not None:
            click.echo(f"warning: {unloaded}", err=True)
        inputs, truth = given(data, labels, network, settings["task"])
        fitted = settings["task"] == "regression" and truth is not None and tau is None
        if fitted and isinstance(truth, Tensor):
            need("scipy", "to fit tau to the truth")
        found = _predicted(network, inputs, truth, samples, settings)
    if isinstance(truth, Pairs):
        truth = checked(truth.joined(), settings["task"], "--data", len(found))
    truth = None if truth is None else _shaped(truth, found)
    found = mc_summary.noted(found, fitted and truth is not None)
    # The table stands on the terminal where the warning stands already.
    kept = found if unloaded is None else replace(found, notes=(unloaded, *found.notes))
    if jsonl is not None:
        _write(jsonl, (json.dumps(line, allow_nan=False) + "\n" for line in mc_summary.lines(kept, truth)))
    try:
        quality = mc_summary.quality(found, truth, tau)
    except (ValueError, TypeError, ImportError) as error:
        raise Failed(f"the prediction cannot be compared with the truth: {error}") from error
    if jsonl != "-":
        colored = wants_color(color)
        click.echo(mc_summary.text(found, truth, quality, top, colored), color=colored)
    if html is not None:
        _write(html, [mc_summary.page(kept, truth, quality, top, model)])
    return 0


def _check(context: click.Context) -> None:
    """What can be said before anything is imported or run."""
    options = context.params
    for option in ("html", "jsonl"):
        path = options[option]
        if path not in (None, "-"):
            must_lie_in_a_folder(path, f"--{option}")
    if options["until"] is not None and options["plan"] == "stratified":
        raise click.UsageError("--until needs --plan iid: stratified samples end together")
    for name in ("tau",) if options["task"] == "classification" else ("outputs", "class_dim"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} means nothing with --task {options['task']}")
    if options["html"] is not None:
        need("jinja2", "for --html")
        need("matplotlib", "for --html")


def _model(target: str, weights: str | None, trust: bool) -> nn.Module:
    if not target.endswith(TORCH) and ":" not in target:
        raise click.UsageError(f"MODEL must be FILE.py:NAME, package.module:NAME or {either(TORCH)}, got {target!r}")
    with user_code(target):
        made = _checkpoint(target, trust) if target.endswith(TORCH) else make_model(load(target, "MODEL"), target)
    if not isinstance(made, nn.Module):
        raise click.UsageError(f"MODEL must be or make a torch.nn.Module, got {type(made).__name__}")
    if weights is not None:
        state = read(weights, "--weights")
        if isinstance(state, Mapping) and "state_dict" in state:  # as Lightning writes it
            state = cast("Mapping[str, Any]", state)["state_dict"]
        try:
            made.load_state_dict(cast("Any", state))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise Failed(f"--weights does not fit the model: {error}") from error
    return made


def _checkpoint(path: str, trust: bool) -> Any:
    must_exist(path, "MODEL")
    if "" not in sys.path:
        sys.path.insert(0, "")  # where a module's class is looked for, as by a script that lies here
    try:
        made = torch.load(path, weights_only=not trust, map_location="cpu")
    except Exception as error:  # a damaged or a foreign file fails in any way
        said = str(error)
        if "TorchScript" in said:
            raise click.UsageError(f"{path} is scripted, and its dropout cannot be seen: give FILE.py:NAME") from error
        if not trust and "Unsupported global" in said:
            raise click.UsageError(f"{path} holds a whole module; loading it runs code in it: give --trust") from error
        raise Failed(f"{path} could not be loaded: {type(error).__name__}: {said.partition(chr(10))[0]}") from error
    if isinstance(made, Mapping):
        raise click.UsageError(f"{path} holds weights and no module: give FILE.py:NAME --weights {path}")
    return made


def _predicted(network: nn.Module, inputs: Any, truth: Any, samples: int, settings: dict[str, Any]) -> Prediction:
    keep, pairs = settings["task"] == "regression", truth if isinstance(truth, Pairs) else None
    labels = truth if isinstance(truth, Tensor) and not keep else None
    try:
        return cast("Any", predict)(network, inputs, samples, keep_samples=keep, adapt=pairs, labels=labels, **settings)
    except NothingToSample as error:
        raise Failed(f"{error}; on the command line: dropkit audit") from error
    except (Exception, SystemExit) as error:
        named = cast("Mapping[str, Any]", inputs) if isinstance(inputs, Mapping) else {"": inputs}
        parts = cast("tuple[Any, ...]", inputs) if isinstance(inputs, tuple) else named.values()
        shapes = ", ".join(str(tuple(one.shape)) for one in parts if isinstance(one, Tensor))
        shown = f" (it was given {shapes})" if shapes else ""
        raise Failed(f"the model could not be run{shown}: {type(error).__name__}: {_said(error)}") from error


# What an error tells to give in Python, and what there is for it here.
_HERE = {
    " (output=...)": "",
    'give task="regression"': "give --task regression",
    'task="regression"': "--task regression",
    "give output=lambda y:": "let the model return, of its output y,",
    "output=lambda y:": "a model that returns, of its output y,",
}


def _said(error: BaseException) -> str:
    """The error, and where a value is refused, how it is given here."""
    said = str(error)
    for python, here in _HERE.items():
        said = said.replace(python, here)
    argument = said.partition(" ")[0]
    if argument not in ("class_dim", "outputs") or (argument == "outputs" and "multilabel" in said):
        return said
    return f"{said}; on the command line: --{argument.replace('_', '-')}"


def _shaped(truth: Tensor, found: Prediction) -> Tensor:
    """The truth in the shape of the prediction, if they differ in dimensions of one at their ends alone."""
    shape = found.label.shape if isinstance(found, ClassPrediction) else found.mean.shape
    return truth.reshape(shape) if _without_ones(truth.shape) == _without_ones(shape) else truth


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return _without_ones(shape[:-1]) if len(shape) > 1 and shape[-1] == 1 else tuple(shape)


def _write(path: str, parts: Iterable[str]) -> None:
    try:
        if path == "-":
            sys.stdout.writelines(parts)
        else:
            files.write(path, "".join(parts).encode(errors="backslashreplace"))
    except BrokenPipeError:
        raise  # a reader that has enough, such as head
    except OSError as error:
        raise Failed(f"{path} could not be written: {files.reason(error)}") from error
