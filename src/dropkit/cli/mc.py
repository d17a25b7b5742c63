"""`dropkit mc`: predict with uncertainty from a model and data, and say how good it is where the truth is known."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import click
import torch
from torch import Tensor, nn

from dropkit.cli.options import wants_color
from dropkit.cli.targets import Failed, called, load, users_own
from dropkit.mc import NothingToSample, Prediction, ValuePrediction, predict, summary

_FILES = (".pt", ".pth", ".ckpt")
_CHOICES = {
    "task": ("classification", "regression"),
    "masks": ("input", "chunk", "shared"),
    "plan": ("iid", "balanced"),
    "outputs": ("logits", "probabilities"),
}


@click.command()
@click.argument("model", metavar="CHECKPOINT|FILE.py:NAME")
@click.option(
    "--data",
    required=True,
    metavar="FILE|FILE.py:NAME",
    help="Inputs: .npy, .npz (x and y) or .pt, or a function that returns inputs, (inputs, truth) or a loader.",
)
@click.option("--labels", metavar="FILE", help="The truth: .npy or .pt.")
@click.option("--weights", metavar="FILE", help="A state dict for the model that FILE.py:NAME makes.")
@click.option("--trust", is_flag=True, help="Load a CHECKPOINT that holds a whole module, which runs code in it.")
@click.option("--samples", type=click.IntRange(min=1), default=50, show_default=True, help="Passes for each input.")
@click.option("--task", type=click.Choice(_CHOICES["task"]), default="classification", show_default=True)
@click.option(
    "--masks",
    type=click.Choice(_CHOICES["masks"]),
    help="Which inputs share masks. Default: chunk for many inputs of classes, else input.",
)
@click.option("--plan", type=click.Choice(_CHOICES["plan"]), default="iid", show_default=True)
@click.option("--outputs", type=click.Choice(_CHOICES["outputs"]), default="logits", show_default=True)
@click.option("--class-dim", type=int, default=1, show_default=True, help="The dimension of classes in the output.")
@click.option("--until", type=float, help="Stop an input once the standard error of its mean is at most this.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--tau", type=float, help="Precision of the noise, for regression: 1 / variance, in units of the truth.")
@click.option("--top", type=click.IntRange(min=0), default=10, show_default=True, help="Least certain inputs to show.")
@click.option("--jsonl", metavar="FILE", help="Write a line of JSON for each input; - for standard output.")
@click.option("--html", type=click.Path(dir_okay=False), help="Write a page with plots.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
def command(
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
    if html is not None and not Path(html).resolve().parent.is_dir():
        raise click.BadParameter(f"must lie in a folder that exists, got {html!r}", param_hint="--html")
    network = _model(model, weights, trust)
    inputs, truth = _data(data)
    if labels is not None:
        truth = _file(labels, "--labels")
    found = _predicted(network, inputs, samples, settings)
    truth = _truth(truth, found)
    if jsonl is not None:
        _write_lines(found, jsonl)
    if jsonl != "-":
        colored = wants_color(color)
        click.echo(_said(lambda: summary.text(found, truth, tau, top, colored)), color=colored)
    if html is not None:
        Path(html).write_text(_said(lambda: summary.page(found, truth, tau, top, model)), encoding="utf-8")
    return 0


def _model(target: str, weights: str | None, trust: bool) -> nn.Module:
    if target.endswith(_FILES):
        made = _checkpoint(target, trust)
    else:
        with users_own(target):
            made = called(load(target, "MODEL"), target)
    if not isinstance(made, nn.Module):
        raise click.UsageError(f"MODEL must be or make a torch.nn.Module, got {type(made).__name__}")
    if weights is not None:
        state = _file(weights, "--weights")
        try:
            made.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            raise Failed(f"--weights does not fit the model: {error}") from error
    return made


def _checkpoint(path: str, trust: bool) -> Any:
    _must_exist(path, "MODEL")
    try:
        made = torch.load(path, weights_only=not trust, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise click.UsageError(f"{path} holds a whole module; loading it runs code in it: give --trust") from error
    if isinstance(made, Mapping):
        raise click.UsageError(f"{path} holds weights and no module: give FILE.py:NAME --weights {path}")
    return made


def _data(target: str) -> tuple[Any, Any]:
    """Inputs, and the truth if it comes with them."""
    if ".py:" not in target and Path(target).suffix:
        value = _file(target, "--data")
    else:
        with users_own(target):
            made = load(target, "--data")
            value: Any = made() if callable(made) else made
    if isinstance(value, Mapping) and "x" in value:
        value = cast("Mapping[str, Any]", value)
        return value["x"], value.get("y")
    if isinstance(value, (tuple, list)) and len(cast("Any", value)) == 2:
        return cast("tuple[Any, Any]", tuple(cast("Any", value)))
    return value, None


def _file(path: str, hint: str) -> Any:
    import numpy

    _must_exist(path, hint)
    suffix = Path(path).suffix
    if suffix == ".npy":
        return torch.from_numpy(numpy.load(path))
    if suffix == ".npz":
        arrays = numpy.load(path)
        named = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return named if "x" in named else next(iter(named.values()))
    if suffix in _FILES:
        return torch.load(path, weights_only=True, map_location="cpu")
    raise click.BadParameter(f"must be .npy, .npz or .pt, got {path!r}", param_hint=hint)


def _must_exist(path: str, hint: str) -> None:
    if not Path(path).is_file():
        raise click.BadParameter(f"must name a file, got {path!r}", param_hint=hint)


def _predicted(network: nn.Module, inputs: Any, samples: int, settings: dict[str, Any]) -> Prediction:
    keep = settings["task"] == "regression"
    try:
        return predict(network, inputs, samples, keep_samples=keep, **settings)
    except NothingToSample as error:
        raise Failed(f"{error}; on the command line: dropkit audit") from error
    except Exception as error:
        shape = f" (it was given {tuple(inputs.shape)})" if isinstance(inputs, Tensor) else ""
        raise Failed(f"the model could not be run{shape}: {type(error).__name__}: {error}") from error


def _truth(truth: Any, found: Prediction) -> Tensor | None:
    if truth is None:
        return None
    truth = torch.as_tensor(truth)
    return truth.to(found.mean.dtype) if isinstance(found, ValuePrediction) else truth.long()


def _write_lines(found: Prediction, path: str) -> None:
    lines = (json.dumps(line) + "\n" for line in summary.lines(found))
    with click.open_file(path, "w", encoding="utf-8") as file:
        file.writelines(lines)


def _said(make: Any) -> str:
    """What cannot be made of the truth that was given is the user's to know."""
    try:
        return make()
    except (ValueError, TypeError) as error:
        raise Failed(str(error)) from error
