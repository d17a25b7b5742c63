"""The default network of the scikit-learn estimators, and its training by Adam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dropkit.nn import Dropout

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Training:
    """The parameters of the training, by the names of the estimators."""

    epochs: int
    lr: float
    batch_size: int
    weight_decay: float


def fit_network(
    make: Callable[[], nn.Module], inputs: Tensor, targets: Tensor, loss: Loss, training: Training, seed: int
) -> nn.Module:
    """Make a network, train it and return it in eval mode; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        # Not torch.manual_seed, which would seed every accelerator, too.
        torch.default_generator.manual_seed(seed)
        network = make().train()
        optimizer = torch.optim.Adam(network.parameters(), training.lr, weight_decay=training.weight_decay)
        for _ in range(training.epochs):
            order = torch.randperm(len(inputs))
            for first in range(0, len(inputs), training.batch_size):
                batch = order[first : first + training.batch_size]
                optimizer.zero_grad()
                loss(network(inputs[batch]), targets[batch]).backward()
                optimizer.step()
    return network.eval()


def perceptron(inputs: int, outputs: int, hidden: Sequence[int], p: float) -> nn.Module:
    """Return a multilayer perceptron with dropout after each hidden layer."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(), Dropout(p)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
