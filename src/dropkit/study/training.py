"""Train one network with one kind of dropout and one seed, and measure its errors.

With one seed, all kinds of dropout have the same split, initial weights and order of batches, bit for bit.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, nan
from time import perf_counter

import torch
from torch import nn
from torch.nn.functional import nll_loss

from dropkit.random import fold_in
from dropkit.study.arms import Arm
from dropkit.study.digits import Digits, split
from dropkit.study.networks import Network

# What a seed is used for. Each purpose has a generator of its own, so that masks do not change the order of batches.
_SPLIT, _WEIGHTS_AND_MASKS, _ORDER = range(3)

# Batch size of the evaluation: small enough that activations stay in the cache.
_EVALUATION_BATCH = 500


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained: by SGD with Nesterov momentum and a learning rate that falls linearly to zero.

    The effect of dropout shows with few digits, many epochs and a falling learning rate; a constant one hides it.

    Attributes:
        digits: number of training digits; the others are the test set.
        epochs: training epochs.
        batch: batch size.
        rate: learning rate of the first step.
        momentum: momentum of SGD.
    """

    digits: int = 500
    epochs: int = 30
    batch: int = 50
    rate: float = 0.03
    momentum: float = 0.9


@dataclass(frozen=True, slots=True)
class Run:
    """One trained network. Errors are fractions of digits, in eval mode, and NaN if the outputs are not finite."""

    network: str
    arm: Arm
    seed: int
    train_error: float
    test_error: float
    seconds_per_epoch: float

    @property
    def failed(self) -> bool:
        """Whether outputs of the trained network are not finite."""
        return not (isfinite(self.train_error) and isfinite(self.test_error))


def train(name: str, network: Network, arm: Arm, seed: int, digits: Digits, recipe: Recipe) -> Run:
    """Train `network` with the dropout of `arm` and measure its errors; torch's generator and threads are restored."""
    training, test = split(digits, recipe.digits, _generator(seed, _SPLIT))
    with torch.random.fork_rng(devices=[]), _one_thread():
        _seeded(torch.default_generator, seed, _WEIGHTS_AND_MASKS)
        model = network(arm)
        start = perf_counter()
        _fit(model, training, recipe, _generator(seed, _ORDER))
        seconds = (perf_counter() - start) / recipe.epochs
        return Run(name, arm, seed, _error(model, training), _error(model, test), seconds)


def _fit(model: nn.Module, digits: Digits, recipe: Recipe, order: torch.Generator) -> None:
    optimizer = torch.optim.SGD(model.parameters(), recipe.rate, recipe.momentum, nesterov=True)
    steps = recipe.epochs * -(-len(digits) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
    for _ in range(recipe.epochs):
        shuffled = torch.randperm(len(digits), generator=order)
        for first in range(0, len(digits), recipe.batch):
            batch = digits[shuffled[first : first + recipe.batch]]
            optimizer.zero_grad()
            nll_loss(model(batch.images), batch.labels).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def _error(model: nn.Module, digits: Digits) -> float:
    """Put `model` in eval mode and return the fraction of wrong predictions; NaN if an output is NaN."""
    model.eval()
    outputs = torch.cat([model(images) for images in torch.split(digits.images, _EVALUATION_BATCH)])
    error = (outputs.argmax(1) != digits.labels).double().mean().item()
    return nan if outputs.isnan().any() else error


def _generator(seed: int, purpose: int) -> torch.Generator:
    return _seeded(torch.Generator(), seed, purpose)


def _seeded(generator: torch.Generator, seed: int, purpose: int) -> torch.Generator:
    return generator.manual_seed(int(fold_in(seed, purpose).item()))


@contextmanager
def _one_thread() -> Generator[None]:
    """Use one thread: layers this small gain little from a second one, and lose much when other processes are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
