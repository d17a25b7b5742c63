"""Is Monte Carlo dropout by `dropkit.mc.predict` ever slower than the loop that people write?

The loop runs the model T times in training mode, and sums the probabilities, their squares and their entropies as they
come, for the mean, the variance, the entropy and the mutual information; for values the mean and the variance.
`predict` computes the same (`measures="basic", plain=False`), with masks that do not depend on how inputs are batched,
as by default, and with one seed for all calls. The ratio says how many times faster it is. ViT-Tiny needs timm.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from helpers.torchvision_import import import_torchvision
from side_by_side import Row, faster, threads
from torch import Tensor, nn

import dropkit

THREADS = 2


class Tagger(nn.Module):
    """A class for each token: an embedding, a body of layers with dropout, and a linear layer."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.embedding, self.body, self.head = nn.Embedding(1000, 64), body, nn.Linear(64, 9)

    def forward(self, tokens: Tensor) -> Tensor:
        output = self.body(self.embedding(tokens))
        return self.head(output[0] if isinstance(output, tuple) else output)


class Case:
    """A model and its inputs.

    Args:
        samples: T.
        options: of `predict`.
    """

    def __init__(self, name: str, model: nn.Module, inputs: Tensor, samples: int, **options: Any) -> None:
        self.model, self.inputs, self.samples, self.options = model.eval(), inputs, samples, options
        self.name = f"{name}, T = {samples}"

    def predict(self) -> Any:
        return dropkit.mc.predict(
            self.model, self.inputs, self.samples, seed=0, measures="basic", plain=False, progress=False, **self.options
        )

    @torch.no_grad()
    def loop(self) -> object:
        self.model.train()  # as no model has batch norm; else torch's encoder layers would not drop
        is_regression = self.options.get("task") == "regression"
        return (self.values if is_regression else self.classes)(self.options.get("class_dim", 1))

    def values(self, dim: int) -> list[Tensor]:
        total = square = torch.zeros(())
        for _ in range(self.samples):
            y = self.model(self.inputs)
            total, square = total + y, square + y.square()
        mean = total / self.samples
        return [mean, (square / self.samples - mean.square()) * self.samples / (self.samples - 1)]

    def classes(self, dim: int) -> list[Tensor]:
        total = square = entropies = torch.zeros(())
        for _ in range(self.samples):
            logs = self.model(self.inputs).log_softmax(dim)
            p = logs.exp()
            total, square, entropies = total + p, square + p.square(), entropies - (p * logs).sum(dim)
        mean = total / self.samples
        variance = (square / self.samples - mean.square()) * self.samples / (self.samples - 1)
        entropy = -torch.special.xlogy(mean, mean).sum(dim)
        return [mean, variance, entropy, entropy - entropies / self.samples]


def rows() -> list[Row]:
    with threads(THREADS):
        return [faster(case.name, case.predict, case.loop, ">= 1", runs=5) for case in cases()]


def cases() -> Iterator[Case]:
    torch.manual_seed(0)
    yield Case(
        "MLP 13-100-100-1, 500 inputs, values", mlp(13, 100, 1, 0.1), torch.randn(500, 13), 50, task="regression"
    )
    yield Case("MLP 784-512-512-10, 1000 inputs", mlp(784, 512, 10, 0.5), torch.randn(1000, 784), 50)
    yield Case("CNN of digits, 200 inputs", digits(), torch.randn(200, 1, 28, 28), 20)
    if importlib.util.find_spec("timm"):
        yield Case("ViT-Tiny, rates of 0.1, 8 images 224x224", vit(), torch.randn(8, 3, 224, 224), 10)
    yield Case("MLP 512-512-512-1000, 256 inputs", mlp(512, 512, 1000, 0.5), torch.randn(256, 512), 50)
    images = torch.randn(8, 3, 96, 96)
    yield Case("segmentation, 19 classes, 8 images 96x96", segmentation(), images, 20, class_dim=1)
    yield Case("19 values for each of 96x96 pixels, 8 images", segmentation(), images, 20, task="regression")
    yield Case("MLP 784-512-512-10, one input", mlp(784, 512, 10, 0.5), torch.randn(1, 784), 50)
    yield Case("CNN of digits, one input", digits(), torch.randn(1, 1, 28, 28), 50)
    tokens = torch.randint(1000, (32, 48))
    lstm = nn.LSTM(64, 64, 2, batch_first=True, dropout=0.3)
    yield Case("LSTM tagger, 32 sequences of 48", Tagger(lstm), tokens, 20, class_dim=-1)
    layer = nn.TransformerEncoderLayer(64, 4, 128, 0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    yield Case("transformer tagger, 32 sequences of 48", Tagger(encoder), tokens, 20, class_dim=-1)


def mlp(inputs: int, hidden: int, outputs: int, p: float) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(p),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(p), nn.Linear(hidden, outputs),
    )  # fmt: skip


def digits() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip


def vit() -> nn.Module:
    import_torchvision()  # which timm imports
    timm: Any = __import__("timm")
    return timm.create_model("vit_tiny_patch16_224", drop_rate=0.1, proj_drop_rate=0.1, pos_drop_rate=0.1)


def segmentation() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.2), nn.Conv2d(32, 19, 1),
    )  # fmt: skip
