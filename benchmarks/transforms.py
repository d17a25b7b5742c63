"""What do masks of their own for each slice cost under `torch.func`?

`torch.vmap(randomness="different")` of `dropkit.functional.dropout`, alone, with a gradient of its result and with keys
that are given, is compared with that of `torch.nn.functional.dropout`; and the gradients of each sample of a small
network under `dropkit.install()` with those without it. The ratio is dropkit's time as a multiple of PyTorch's: lower
is better.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from side_by_side import Row, relative, threads
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import dropkit
from dropkit import random
from dropkit.functional import dropout

SAMPLES = (64, 256, 1024, 4096)
FEATURES = 16


def rows() -> list[Row]:
    return [row for number in (1, 2) for row in on_threads(number)]


def on_threads(number: int) -> list[Row]:
    with threads(number):
        table = [row for samples in SAMPLES for row in of_slices(samples, number)]
        return [*table, of_a_network(256, number), of_a_network(1024, number)]


def of_slices(samples: int, number: int) -> list[Row]:
    """Compare a batch of slices: the forward pass, with keys, and forward and backward."""
    x = torch.randn(samples, FEATURES)
    leaf, upstream = torch.randn(samples, FEATURES, requires_grad=True), torch.randn(samples, FEATURES)
    keys = random.split(7, samples)
    ours, theirs = of_all(dropout), of_all(F.dropout)
    keyed = vmap(lambda x, key: dropout(x, key=key))

    def step(function: Callable[[Tensor], Tensor]) -> None:
        torch.autograd.grad(function(leaf), leaf, upstream)

    size, rest = f"{samples} x {FEATURES}", f"threads: {number}"
    return [
        relative(f"forward, {size}, {rest}", lambda: ours(x), lambda: theirs(x), "<= 1.2", runs=21),
        relative(f"forward, {size}, with keys, {rest}", lambda: keyed(x, keys), lambda: theirs(x), "<= 1.2", runs=21),
        relative(f"forward + backward, {size}, {rest}", lambda: step(ours), lambda: step(theirs), "<= 1.2", runs=21),
    ]


def of_all(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return vmap(function, randomness="different")


def of_a_network(samples: int, number: int) -> Row:
    """Compare the gradients of each sample of a network with one hidden layer."""
    network = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10))
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    x, targets = torch.randn(samples, 32), torch.randint(10, (samples,))

    def loss(weights: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, weights, (x,)), target)

    gradients = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")

    def step() -> None:
        gradients(weights, x, targets)

    case = f"gradients of each of {samples} samples under install, threads: {number}"
    # Long samples: the first call after `install` fills torch's caches of kernels again.
    return relative(case, step, step, "<= 1.2", runs=9, seconds=0.03, within=dropkit.installed)
