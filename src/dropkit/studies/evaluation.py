"""Measure a trained model on one part of the data: its plain predictions, and those of Monte Carlo dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from dropkit import mc
from dropkit.arguments import check
from dropkit.mc.measures import ClassMeasures
from dropkit.studies.data import Data, Examples

# Examples in a pass: few enough that activations stay in the cache.
_BATCH = 500


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
    return ERROR if data.task == "classification" else RMSE


def find_metric(name: str, data: Data) -> Metric:
    """Return one of our own metrics, or one of torchmetrics by the name of its class.

    Raises:
        ValueError: there is none of this name for the task.
    """
    own = {metric.name: metric for metric in _METRICS[data.task]}
    if name in own:
        return own[name]
    higher = _torchmetric(name, data).higher_is_better
    check("metric", higher is not None, "one that is better when higher or lower", name)
    return Metric(name, name, is_higher_better=bool(higher))


def _torchmetric(name: str, data: Data) -> Any:
    import torchmetrics

    cls = getattr(torchmetrics, name, None)
    wanted = f"error, nll, or the name of a {data.task} metric of torchmetrics"
    check("metric", isinstance(cls, type) and issubclass(cls, torchmetrics.Metric), wanted, repr(name))
    assert cls is not None  # for pyright
    options: dict[str, Any] = {}
    if data.task == "classification":
        # The mean over classes is what torchmetrics calls macro; its classes differ in whether they take the argument.
        options = {"task": "multiclass", "num_classes": len(data.classes)}
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metric must be {wanted}, got {name!r}: {error}") from error


def loss(outputs: Tensor, targets: Tensor, data: Data) -> Tensor:
    """The training loss: cross entropy of logits or log-probabilities, or the mean squared error."""
    if data.task == "classification":
        return cross_entropy(_by_row(outputs, targets, data), targets.reshape(-1))
    return mse_loss(outputs.reshape(targets.shape), targets)


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """Run the model in eval mode and return its outputs, (N, ...)."""
    model.eval()
    return torch.cat([model(batch) for batch in torch.split(inputs, _BATCH)])


def measure(outputs: Tensor, examples: Examples, data: Data, scale: float, metric: Metric | None = None) -> dict[str, float]:
    """Return the metrics of outputs: error, nll, ece and overconfidence of classes; rmse and mae of values.

    Args:
        outputs: logits or log-probabilities, or values.
        examples: what they are predictions for.
        data: says the task.
        scale: unit of standardised values.
        metric: one of torchmetrics, measured too.
    """
    targets = examples.targets
    if data.task == "classification":
        rows = _by_row(outputs, targets, data).double()
        values = _of_classes(mc.from_samples(rows.softmax(-1)[None]), targets.reshape(-1))
        values |= _extra(metric, rows.softmax(-1), targets.reshape(-1), data)
        return values
    return _of_values(outputs, targets, scale) | _extra(metric, outputs.reshape(targets.shape), targets, data)


def measure_samples(model: nn.Module, examples: Examples, data: Data, samples: int, seed: int, scale: float) -> dict[str, float]:
    """Return the metrics of the mean of `samples` predictions with dropout active, by their names after "mc_"."""
    task: Any = data.task
    sampled: Any = mc.predict(model, examples.inputs, samples, task=task, seed=seed, class_dim=-1 if task == "classification" else None)
    if isinstance(sampled, ClassMeasures):
        values = _of_classes(sampled, examples.targets)
    else:
        values = _of_values(sampled.mean, examples.targets, scale)
    return {f"mc_{name}": value for name, value in values.items()}


def _of_classes(prediction: Any, targets: Tensor) -> dict[str, float]:
    report = prediction.report(targets)
    values = {"error": report.error, "nll": report.nll, "ece": report.ece, "overconfidence": report.overconfidence}
    return {name: float(value) for name, value in values.items()}


def _of_values(outputs: Tensor, targets: Tensor, scale: float) -> dict[str, float]:
    distance = scale * (outputs.reshape(targets.shape) - targets).double()
    return {"rmse": distance.square().mean().sqrt().item(), "mae": distance.abs().mean().item()}


def _extra(metric: Metric | None, outputs: Tensor, targets: Tensor, data: Data) -> dict[str, float]:
    if metric is None or metric in _METRICS[data.task]:
        return {}
    measured = _torchmetric(metric.name, data).to(outputs.device)
    return {metric.name: float(measured(outputs.float(), targets))}


def _by_row(outputs: Tensor, targets: Tensor, data: Data) -> Tensor:
    """Outputs as (rows, classes), for targets of any shape: classes are in the last dimension, or in dimension 1."""
    classes = len(data.classes)
    if outputs.shape[:-1] != targets.shape or outputs.shape[-1] != classes:
        fits = outputs.dim() > 1 and outputs.shape[1] == classes and outputs.movedim(1, -1).shape[:-1] == targets.shape
        wanted = f"({', '.join(map(str, targets.shape))}, {classes}), logits of {classes} classes for each target"
        check("the model's output", fits, wanted, tuple(outputs.shape))
        outputs = outputs.movedim(1, -1)
    return outputs.reshape(-1, classes)
