"""Training: one network with one kind of dropout, from one seed to its errors.

For one seed the split, the initial weights and the order of the batches are the same bits for every kind of dropout.
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
from dropkit.study.digits import Digits, split
from dropkit.study.kinds import Arm
from dropkit.study.networks import Network

# What a seed is used for; each gets bits of its own, so that tossing coins does not change the order.
_SPLIT, _WEIGHTS_AND_COINS, _ORDER = range(3)

# Digits a step of measuring, which keeps what passes between the layers in the cache.
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained: SGD with Nesterov momentum, its rate falling in a line to zero.

    Few digits, many epochs and a rate that ends at zero show what dropout does: a constant rate hides it.

    Attributes:
        digits: to train on; the others test.
        epochs: visits of every training digit.
        batch: digits a step.
        rate: learning rate of the first step.
        momentum: fraction of the last step that goes on.
    """

    digits: int = 500
    epochs: int = 30
    batch: int = 50
    rate: float = 0.03
    momentum: float = 0.9


@dataclass(frozen=True, slots=True)
class Run:
    """One trained network: errors are fractions of digits, in eval mode; NaN where its outputs are not finite."""

    network: str
    arm: Arm
    seed: int
    train_error: float
    test_error: float
    seconds_per_epoch: float

    @property
    def failed(self) -> bool:
        """Whether the training ended without a network that answers."""
        return not (isfinite(self.train_error) and isfinite(self.test_error))


def train(name: str, network: Network, arm: Arm, seed: int, digits: Digits, recipe: Recipe) -> Run:
    """Train `network` with the dropout of `arm` and measure it; torch's generator and threads are left as they were."""
    learnt, unseen = split(digits, recipe.digits, _generator(seed, _SPLIT))
    with torch.random.fork_rng(devices=[]), _one_thread():
        _set(torch.default_generator, seed, _WEIGHTS_AND_COINS)
        model = network(arm)
        start = perf_counter()
        _fit(model, learnt, recipe, _generator(seed, _ORDER))
        seconds = (perf_counter() - start) / recipe.epochs
        return Run(name, arm, seed, _error(model, learnt), _error(model, unseen), seconds)


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
    """The fraction of `digits` that `model`, put in eval mode, takes for another class; NaN if it answers NaN."""
    model.eval()
    chunks = (digits.images[first : first + _CHUNK] for first in range(0, len(digits), _CHUNK))
    answers = torch.cat([model(images) for images in chunks])
    wrong = (answers.argmax(1) != digits.labels).double().mean().item()
    return nan if answers.isnan().any() else wrong


def _generator(seed: int, purpose: int) -> torch.Generator:
    return _set(torch.Generator(), seed, purpose)


def _set(generator: torch.Generator, seed: int, purpose: int) -> torch.Generator:
    return generator.manual_seed(int(fold_in(seed, purpose).item()))


@contextmanager
def _one_thread() -> Generator[None]:
    """One thread: layers this small gain little from a second, and lose much when another process wants the core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
