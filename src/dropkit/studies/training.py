"""Train one model with the dropout of one trial, and measure it.

With one seed, all settings have the same split, initial weights and order of batches, bit for bit.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from time import perf_counter

import torch
from torch import Tensor, nn

from dropkit.arguments import check, positive_int
from dropkit.random import fold_in
from dropkit.studies.data import PARTS, Data, Sizes, Split, split
from dropkit.studies.evaluation import Metric, loss, measure, measure_samples, predict, run
from dropkit.studies.inputs import MakeModel
from dropkit.studies.kinds import place_dropout
from dropkit.studies.trial import Outcome, Trial, not_finite

# What a seed is used for. Each purpose has a generator of its own, so that masks do not change the order of batches.
_SPLIT, _WEIGHTS, _ORDER, _MASKS, _SAMPLES = range(5)

# Examples of each part in a rehearsal.
_FEW = 8

# The learning curves have about this many points, unless training may stop early.
_POINTS = 5

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adamw": torch.optim.AdamW,
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained: with a learning rate that falls linearly to zero.

    The effect of dropout shows with few examples, many epochs and a falling learning rate; a constant one hides it.

    Attributes:
        sizes: how the data is split.
        epochs: training epochs, at most.
        batch_size: examples in a step.
        optimizer: "sgd", with Nesterov momentum of 0.9, or "adamw".
        learning_rate: of the first step.
        weight_decay: of the optimizer.
        clip_norm: gradients of a larger norm are scaled down to it, without which training at high dropout rates may
            diverge; 0 for no limit.
        patience: stop when the validation loss has not fallen for so many epochs, and take the weights of the best
            epoch; None to train for all epochs.
        samples: passes of Monte Carlo dropout in the evaluation; 0 for none.
        device: of the model and its batches.

    Raises:
        ValueError: a value is out of range.
    """

    sizes: Sizes = field(default_factory=Sizes)
    epochs: int = 30
    batch_size: int = 50
    optimizer: str = "sgd"
    learning_rate: float = 0.03
    weight_decay: float = 0.0
    clip_norm: float = 5.0
    patience: int | None = None
    samples: int = 10
    device: str = "cpu"

    def __post_init__(self) -> None:
        positive_int("epochs", self.epochs)
        positive_int("batch_size", self.batch_size)
        check("optimizer", self.optimizer in _OPTIMIZERS, " or ".join(_OPTIMIZERS), repr(self.optimizer))
        check("learning_rate", 0 < self.learning_rate < float("inf"), "positive", self.learning_rate)
        check("weight_decay", 0 <= self.weight_decay < float("inf"), "at least 0", self.weight_decay)
        check("clip_norm", 0 <= self.clip_norm < float("inf"), "at least 0", self.clip_norm)
        check("samples", self.samples >= 0, "at least 0", self.samples)
        if self.patience is not None:
            positive_int("patience", self.patience)
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise ValueError(f"device must be one of torch, got {self.device!r}") from error


def train(trial: Trial, make_model: MakeModel, data: Data, recipe: Recipe, metric: Metric) -> Outcome:
    """Train a model with the dropout of `trial` and measure it on each part of the data.

    The generators of torch, NumPy and Python and the number of threads are restored. An error of the model is the
    caller's.
    """
    parts = split(data, recipe.sizes, _generator(trial.seed, _SPLIT))
    with own_random_numbers(recipe.device):
        model = make(trial, make_model, parts.training.inputs[:2])
        return _train(trial, model, parts, data, recipe, metric)


def rehearse(trial: Trial, make_model: MakeModel, data: Data, recipe: Recipe, metric: Metric) -> nn.Module:
    """Run a trial on a few examples, to meet at once the errors that every trial would meet; return its model."""
    parts = split(data, recipe.sizes, _generator(trial.seed, _SPLIT)).map(lambda examples: examples[:_FEW])
    with own_random_numbers(recipe.device), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about so few examples; the trials themselves will warn
        model = make(trial, make_model, parts.training.inputs[:2])
        _train(trial, model, parts, data, replace(recipe, epochs=1), metric)
    return model


def make(trial: Trial, make_model: MakeModel, example: Tensor) -> nn.Module:
    """Make the model of a trial: the weights follow from the seed, the dropout from the setting.

    Raises:
        TypeError: it is no module.
        ValueError: the setting does not fit it.
    """
    _seed(trial.seed, _WEIGHTS)
    return place_dropout(make_model(), trial.setting, example)


def _train(trial: Trial, model: nn.Module, parts: Split, data: Data, recipe: Recipe, metric: Metric) -> Outcome:
    model.to(recipe.device)
    parts = parts.map(lambda examples: examples.to(recipe.device))
    _seed(trial.seed, _MASKS)
    start = perf_counter()
    curves = _fit(model, parts, data, recipe, _generator(trial.seed, _ORDER))
    seconds = perf_counter() - start
    metrics = _measure(model, parts, data, recipe, metric, trial)
    return Outcome(trial, metrics, curves, seconds, not_finite(metrics))


def _fit(
    model: nn.Module, parts: Split, data: Data, recipe: Recipe, order: torch.Generator
) -> dict[str, tuple[float, ...]]:
    """Train, and return the curves."""
    optimizer = _OPTIMIZERS[recipe.optimizer](
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * len(_batches(torch.arange(len(parts.training)), recipe.batch_size))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
    every = 1 if recipe.patience is not None else ceil(recipe.epochs / _POINTS)
    curves: dict[str, list[float]] = {"epoch": [], "training_loss": [], "validation_loss": []}
    best, best_epoch, weights = float("inf"), 0, None
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        total = torch.zeros(())
        shuffled = torch.randperm(len(parts.training), generator=order)
        for indices in _batches(shuffled, recipe.batch_size):
            batch = parts.training[indices.to(recipe.device)]
            optimizer.zero_grad()
            value = loss(run(model, batch.inputs), batch.targets, data)
            value.backward()  # pyright: ignore[reportUnknownMemberType] (torch)
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            schedule.step()
            total += value.detach().cpu() * len(batch)
        if epoch % every and epoch != recipe.epochs:
            continue
        outputs = predict(model, parts.validation.inputs)
        validation = float(loss(outputs, parts.validation.targets, data))
        for name, point in zip(curves, (epoch, float(total) / len(parts.training), validation), strict=True):
            curves[name].append(point)
        if recipe.patience is not None:
            if validation < best:
                best, best_epoch, weights = validation, epoch, deepcopy(model.state_dict())
            elif not epoch - best_epoch < recipe.patience:
                break
    if weights is not None:
        model.load_state_dict(weights)
    return {name: tuple(values) for name, values in curves.items()}


def _batches(indices: Tensor, size: int) -> list[Tensor]:
    """The batches of an epoch. One example that remains joins the last batch: a batch norm cannot train on one."""
    batches = [indices[start : start + size] for start in range(0, len(indices), size)]
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _measure(
    model: nn.Module, parts: Split, data: Data, recipe: Recipe, metric: Metric, trial: Trial
) -> dict[str, float]:
    """Metrics of each part by name, such as "test_error"; of Monte Carlo dropout such as "mc_test_error"."""
    metrics: dict[str, float] = {}
    for part in PARTS:
        examples = getattr(parts, part)
        values = measure(predict(model, examples.inputs), examples, data, parts, metric)
        metrics |= {f"{part}_{name}": value for name, value in values.items()}
    if recipe.samples and max(trial.setting.rates) > 0:
        values = measure_samples(model, parts.test, data, parts, recipe.samples, _derived(trial.seed, _SAMPLES))
        metrics |= {f"mc_test_{name}": value for name, value in values.items()}
    return metrics


def _generator(seed: int, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed(_derived(seed, purpose))


def _seed(seed: int, purpose: int) -> None:
    """Seed all generators that a model may use."""
    derived = _derived(seed, purpose)
    torch.manual_seed(derived)  # pyright: ignore[reportUnknownMemberType] (torch)
    random.seed(derived)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(derived % 2**32)


def _derived(seed: int, purpose: int) -> int:
    return int(fold_in(seed, purpose).item())


@contextmanager
def own_random_numbers(device: str) -> Generator[None]:
    """Restore at the end the generators of torch, NumPy and Python, and the number of threads, which is 1 meanwhile.

    Layers so small gain little from a second thread, and results then do not depend on the number of cores.
    """
    numpy, threads = sys.modules.get("numpy"), torch.get_num_threads()
    of_python, of_numpy = random.getstate(), None if numpy is None else numpy.random.get_state()
    place = torch.device(device)
    kind, devices = ("cuda", []) if place.type == "cpu" else (place.type, [place.index or 0])
    with torch.random.fork_rng(devices, device_type=kind):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            random.setstate(of_python)
            if numpy is not None:
                numpy.random.set_state(of_numpy)
