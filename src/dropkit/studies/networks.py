"""The networks of the default study. Another network is a function and its entry in `NETWORKS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from dropkit.arguments import check
from dropkit.studies.data import Data

MakeModel = Callable[[], nn.Module]


def cnn(side: int = 28, classes: int = 10, channels: int = 1) -> nn.Module:
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
        *(nn.Conv2d(channels, 16, kernel, padding=padding), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(16, 32, kernel, padding=padding), nn.Dropout(), nn.MaxPool2d(2), nn.ReLU()),
        nn.Flatten(),
        *(nn.Linear(32 * last * last, 128), nn.ReLU(), nn.Dropout()),
        nn.Linear(128, classes),
    )
    # A third faster on one core: only this layout has a vectorised kernel for max pooling.
    # The ignore is needed because torch declares no overload for this argument.
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue, reportUnknownVariableType]


def mlp(inputs: int = 784, outputs: int = 10) -> nn.Module:
    """Make a network of three linear layers, with dropout after each hidden layer."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(inputs, 256), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(256, 256), nn.ReLU(), nn.Dropout()),
        nn.Linear(256, outputs),
    )


class CharacterGRU(nn.Module):
    """Predict the next character at every place of a text, (N, T) -> (N, T, characters).

    Dropout is on the connections that lead upwards, and not on those from one place to the next.

    Source: Zaremba, Sutskever, Vinyals, "Recurrent Neural Network Regularization", 2014, arXiv:1409.2329, with the cell
    of Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, arXiv:1406.1078.
    """

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.embedding: nn.Embedding = nn.Embedding(characters, 64)
        self.dropout_in: nn.Dropout = nn.Dropout()
        self.gru: nn.GRU = nn.GRU(64, 192, batch_first=True)
        self.dropout_out: nn.Dropout = nn.Dropout()
        self.head: nn.Linear = nn.Linear(192, characters)

    def forward(self, input: Tensor) -> Tensor:
        """Return the logits of the next characters."""
        hidden, _ = self.gru(self.dropout_in(self.embedding(input)))
        return self.head(self.dropout_out(hidden))


def gru(characters: int = 64) -> nn.Module:
    """Make a character model."""
    return CharacterGRU(characters)


NETWORKS: dict[str, Callable[..., nn.Module]] = {"cnn": cnn, "mlp": mlp, "gru": gru}


def networks_for(data: Data, names: Sequence[str] = ()) -> dict[str, MakeModel]:
    """Return functions that make the networks of these names, or all that fit the data.

    Raises:
        ValueError: they do not fit the data.
    """
    arguments = _arguments(data)
    shape = f"inputs of shape {tuple(data.inputs.shape)} and targets of shape {tuple(data.targets.shape)}"
    wanted = f"FILE.py:NAME, or one of those that fit the data ({', '.join(arguments) or 'none does'})"
    check(
        "MODEL", bool(arguments) and all(name in arguments for name in names), wanted, f"{', '.join(names)} for {shape}"
    )
    return {name: partial(NETWORKS[name], **arguments[name]) for name in names or arguments}


def _arguments(data: Data) -> dict[str, dict[str, int]]:
    """The arguments of each network that fits the data."""
    shape = data.inputs.shape[1:]
    classes = len(data.classes)
    if not data.inputs.is_floating_point() and data.inputs.dtype != torch.uint8:
        is_text = classes > 0 and data.inputs.shape == data.targets.shape and len(shape) == 1
        # Inputs and targets are characters of one alphabet.
        return {"gru": {"characters": max(classes, int(data.inputs.max()) + 1)}} if is_text else {}
    arguments = {"mlp": {"inputs": shape.numel(), "outputs": classes or data.targets[0].numel()}}
    if classes and data.targets.dim() > 1:
        return {}
    if classes and len(shape) == 3 and shape[1] == shape[2] >= 4:
        return {"cnn": {"side": shape[1], "classes": classes, "channels": shape[0]}} | arguments
    return arguments
