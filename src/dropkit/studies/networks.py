"""The networks of the default study. Another network is a function and its entry in `NETWORKS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from dropkit.arguments import check
from dropkit.studies.data import Data

MakeModel = Callable[[], nn.Module]


def cnn(side: int = 28, classes: int = 10) -> nn.Module:
    """Make the classic digit network: two convolutions and two linear layers, with a dropout in each pair.

    It is wider than the original's 10 and 20 channels and 50 units: with so few, losing half of them costs most of what
    dropout gains. Multiples of 16 fill the vectors of a processor.

    Source: the MNIST example of the PyTorch project, after LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning
    Applied to Document Recognition", Proc. IEEE 86(11), 1998.
    """
    kernel = 5 if side >= 16 else 3
    last = ((side - kernel + 1) // 2 - kernel + 1) // 2 if side >= 16 else side // 4
    padding = 0 if side >= 16 else 1
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, kernel, padding=padding), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(16, 32, kernel, padding=padding), nn.Dropout(), nn.MaxPool2d(2), nn.ReLU()),
        nn.Flatten(),
        *(nn.Linear(32 * last * last, 128), nn.ReLU(), nn.Dropout()),
        nn.Linear(128, classes),
    )
    # A third faster on one core: only this layout has a vectorised kernel for max pooling.
    # The ignore is needed because torch declares no overload for this argument.
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportUnknownVariableType]


def mlp(side: int = 28, classes: int = 10) -> nn.Module:
    """Make a network of three linear layers, with dropout after each hidden layer."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(side * side, 256), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(256, 256), nn.ReLU(), nn.Dropout()),
        nn.Linear(256, classes),
    )


NETWORKS: dict[str, Callable[..., nn.Module]] = {"cnn": cnn, "mlp": mlp}


def networks_for(data: Data, names: Sequence[str] = ()) -> dict[str, MakeModel]:
    """Return functions that make the networks of these names, or all, for the data.

    Raises:
        ValueError: they do not fit the data.
    """
    shape = tuple(data.inputs.shape[1:])
    fits = data.task == "classification" and len(shape) == 3 and shape[0] == 1 and shape[1] == shape[2]
    check("MODEL", fits, f"FILE.py:NAME, since {', '.join(names or NETWORKS)} take square grey images", shape)
    return {name: partial(NETWORKS[name], side=shape[1], classes=len(data.classes)) for name in names or NETWORKS}
