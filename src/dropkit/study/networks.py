"""The networks that are trained. Another network is a function and its entry in `NETWORKS`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from dropkit.study.arms import Arm

Network = Callable[[Arm], nn.Module]


def cnn(arm: Arm) -> nn.Module:
    """Make the classic digit network: two convolutions and two linear layers, with a dropout in each pair.

    It is wider than the original's 10 and 20 channels and 50 units: with so few, losing half of them costs most of what
    dropout gains. Multiples of 16 fill the vectors of a processor.

    Source: the MNIST example of the PyTorch project, after LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning
    Applied to Document Recognition", Proc. IEEE 86(11), 1998.
    """
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 5), arm.channel(), nn.MaxPool2d(2), nn.ReLU()),
        nn.Flatten(),
        *(nn.Linear(32 * 4 * 4, 128), nn.ReLU(), arm.element()),
        *(nn.Linear(128, 10), nn.LogSoftmax(1)),
    )
    # A third faster on one core: only this layout has a vectorised kernel for max pooling.
    # The ignore is needed because torch declares no overload for this argument.
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportUnknownVariableType]


def mlp(arm: Arm) -> nn.Module:
    """Make a network of three linear layers, with dropout after each hidden layer."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(28 * 28, 256), nn.ReLU(), arm.element()),
        *(nn.Linear(256, 256), nn.ReLU(), arm.element()),
        *(nn.Linear(256, 10), nn.LogSoftmax(1)),
    )


NETWORKS: dict[str, Network] = {"cnn": cnn, "mlp": mlp}
