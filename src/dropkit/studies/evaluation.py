"""Measure a trained model on one part of the data: its plain predictions, and those of Monte Carlo dropout."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from dropkit import mc
from dropkit.arguments import check, did_you_mean
from dropkit.extras import needed_for
from dropkit.mc.outputs import check_rows, sum_to_one
from dropkit.mc.returned import tensor_of
from dropkit.studies.data import Data, Examples, Split

# Examples in a pass: few enough that activations stay in the cache, and numbers of large inputs in memory.
_BATCH = 100
_NUMBERS = 2**22
# So many rows of logits do not all sum to 1 by chance.
_MIN_ROWS = 8


@dataclass(frozen=True, slots=True)
class Metric:
    """What settings are compared by.

    Attributes:
        name: as in the metrics of an outcome, after "validation_" or "test_".
        label: for tables and plots.
        is_higher_better: False for errors and losses.
        is_fraction: whether it is shown in percent.
    """

    name: str
    label: str
    is_higher_better: bool = False
    is_fraction: bool = False


ERROR = Metric("error", "error", is_fraction=True)
RMSE = Metric("rmse", "root mean squared error")

# Those that are always measured.
_METRICS = {
    "classification": (ERROR, Metric("nll", "negative log-likelihood"), Metric("ece", "calibration error")),
    "regression": (RMSE, Metric("mae", "mean absolute error")),
}


def default_metric(data: Data) -> Metric:
    """The metric of a task: the error of classes, the root mean squared error of values."""
    return _METRICS[data.task][0]


def find_metric(name: str, data: Data, is_higher_better: bool | None = None) -> Metric:
    """Return one of our own metrics, or one of torchmetrics by the name of its class, with its default arguments.

    Args:
        name: "error", "nll", "ece", "rmse", "mae", or the class of torchmetrics.
        data: what is to be measured.
        is_higher_better: needed where torchmetrics does not say.

    Raises:
        ImportError: torchmetrics is not installed.
        ValueError: there is none of this name for the data, which is tried on eight of its targets.
    """
    own = {metric.name: metric for metric in _METRICS[data.task]}
    if name in own:
        return own[name]
    measured = _torchmetric(name, data)
    targets = data.targets[:_MIN_ROWS]
    guesses = torch.randn(targets.shape, generator=torch.Generator().manual_seed(0))
    if data.task == "classification":
        # Each class is predicted for one of the rows in turn.
        guesses = torch.eye(len(data.classes))[torch.arange(targets.numel()) % len(data.classes)] + 1
        guesses, targets = guesses / guesses.sum(-1, keepdim=True), targets.reshape(-1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about so few targets
            float(measured(guesses, targets))
    except Exception as error:  # whatever its code does with inputs of another kind
        raise ValueError(f"metric must be {_wanted(data)}, got {name!r}: {_first_line(error)}") from error
    better = measured.higher_is_better if is_higher_better is None else is_higher_better
    wanted = f"given for {name}, of which torchmetrics does not say whether higher is better"
    check("is_higher_better", better is not None, wanted, None)
    return Metric(name, name, bool(better))


def _torchmetric(name: str, data: Data) -> Any:
    with needed_for(f"metric {name!r}, if it is not misspelled,"):
        import torchmetrics
    cls: Any = getattr(torchmetrics, name, None)
    if not (isinstance(cls, type) and issubclass(cls, torchmetrics.Metric)):
        known = [metric.name for metric in _METRICS[data.task]] + list(torchmetrics.__all__)
        raise ValueError(f"metric must be {_wanted(data)}, got {name!r}{did_you_mean(name, known)}")
    # The same class is for all tasks, or for values only.
    options = {"task": "multiclass", "num_classes": len(data.classes)} if data.task == "classification" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metrics of text and pictures that have moved, and are refused
            return cls(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metric must be {_wanted(data)}, got {name!r}: {_first_line(error)}") from error


def _wanted(data: Data) -> str:
    kind = "multiclass" if data.task == "classification" else data.task
    return f"{', '.join(metric.name for metric in _METRICS[data.task])}, or a {kind} metric of torchmetrics"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def run(model: nn.Module, inputs: Tensor) -> Tensor:
    """Run the model once and return its output: a tensor, `.logits`, or the first item of a tuple.

    Raises:
        TypeError: it returns something else.
        ValueError: it has not one row for each input.
    """
    output = tensor_of(model(inputs))
    check_rows(output, len(inputs))
    return output


def loss(outputs: Tensor, targets: Tensor, data: Data) -> Tensor:
    """The training loss: cross entropy of logits or log-probabilities, or the mean squared error."""
    if data.task == "classification":
        return cross_entropy(_logits(outputs, data).flatten(0, -2), targets.reshape(-1))
    return mse_loss(_values(outputs, data), targets)


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """Run the model in eval mode and return its outputs, (N, ...)."""
    model.eval()
    rows = max(1, min(_BATCH, _NUMBERS * len(inputs) // max(1, inputs.numel())))
    return torch.cat([run(model, inputs[start : start + rows]) for start in range(0, len(inputs), rows)])


def measure(
    outputs: Tensor, examples: Examples, data: Data, parts: Split, metric: Metric | None = None
) -> dict[str, float]:
    """Return the metrics of outputs: error, nll, ece and overconfidence of classes; rmse and mae of values.

    Args:
        outputs: logits or log-probabilities, or values.
        examples: what they are predictions for.
        data: says the task.
        parts: holds the unit of the targets.
        metric: one of torchmetrics, measured too.

    Raises:
        ValueError: the outputs do not fit the targets, or are probabilities.
    """
    targets = examples.targets.cpu()
    if data.task == "classification":
        logits = _logits(outputs.cpu().float(), data)
        wanted = "logits or log-probabilities, as the loss applies the softmax"
        check("the model's output", not _are_probabilities(logits), wanted, "probabilities")
        predictions = logits.softmax(-1)
        values = _of_classes(mc.from_samples(predictions[None]), targets)
        predictions, targets = predictions.flatten(0, -2), targets.reshape(-1)
    else:
        predictions, targets = _in_unit(_values(outputs.cpu(), data), parts), _in_unit(targets, parts)
        values = _of_values(predictions, targets)
    if metric is not None and metric not in _METRICS[data.task]:
        values[metric.name] = float(_torchmetric(metric.name, data)(predictions, targets))
    return values


def measure_samples(
    model: nn.Module, examples: Examples, data: Data, parts: Split, samples: int, seed: int
) -> dict[str, float]:
    """Return the metrics of the mean of `samples` predictions with dropout active.

    Raises:
        NothingToSample: the model has no active dropout.
    """
    predict = partial(
        mc.predict, model, examples.inputs, samples, seed=seed, measures=(), errors=False, plain=False, progress=False
    )
    targets = examples.targets.cpu()
    if data.task == "classification":
        return _of_classes(predict(class_dim=-1, output=lambda output: _logits(tensor_of(output), data)), targets)
    mean = predict(task="regression", output=lambda output: _values(tensor_of(output), data)).mean
    return _of_values(_in_unit(mean, parts), _in_unit(targets, parts))


def _of_classes(prediction: Any, targets: Tensor) -> dict[str, float]:
    report = prediction.report(targets)
    values = {"error": report.error, "nll": report.nll, "ece": report.ece, "overconfidence": report.overconfidence}
    return {name: float(value) for name, value in values.items()}


def _of_values(predictions: Tensor, targets: Tensor) -> dict[str, float]:
    distance = (predictions - targets).double()
    return {"rmse": distance.square().mean().sqrt().item(), "mae": distance.abs().mean().item()}


def _in_unit(values: Tensor, parts: Split) -> Tensor:
    """Standardised values in the unit of the data."""
    return values * parts.scale + parts.center


def _values(outputs: Tensor, data: Data) -> Tensor:
    """Outputs as (N, ...) in the shape of the targets."""
    shape = data.targets.shape[1:]
    fits = outputs.shape[1:].numel() == shape.numel()
    wanted = f"{_shown((len(outputs), *shape))}, as the targets are numbers; targets that are classes must be integers"
    check("the model's output", fits, wanted, _shown(outputs.shape))
    return outputs.reshape(len(outputs), *shape)


def _logits(outputs: Tensor, data: Data) -> Tensor:
    """Outputs as (N, ..., classes), for targets of any shape: classes are in the last dimension, or in dimension 1.

    A single number is the logit of the second of two classes.
    """
    classes, shape, own = len(data.classes), tuple(data.targets.shape[1:]), tuple(outputs.shape[1:])
    if classes == 2 and own in (shape, (*shape, 1)):
        second = outputs.reshape(len(outputs), *shape)
        return torch.stack([torch.zeros_like(second), second], -1)
    if own == (*shape, classes):
        return outputs
    wanted = f"{_shown((len(outputs), *shape, classes))}, logits of {classes} classes"
    check("the model's output", own == (classes, *shape), wanted, _shown(outputs.shape))
    return outputs.movedim(1, -1)


def _are_probabilities(rows: Tensor) -> bool:
    # Rows that are one-hot may be logits.
    are_in_range = bool((rows >= 0).all()) and bool(((rows > 0) & (rows < 1)).any())
    return rows.shape[:-1].numel() >= _MIN_ROWS and are_in_range and sum_to_one(rows)


def _shown(shape: tuple[int, ...]) -> str:
    return str(tuple(shape))
