"""`predict` needs little more memory than a pass of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.peak_memory import bytes_of, peak_memory
from torch import Tensor, nn

from dropkit.mc.predict import predict


class Blocks(nn.Module):
    """Many layers with dropout, whose outputs a pass does not keep."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Dropout(0.1), nn.Linear(128, 32)) for _ in range(12)
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x.mean(1))


class Tagger(nn.Module):
    """A class for each token."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(64, 9)

    def forward(self, x: Tensor) -> Tensor:
        output = self.body(x)
        return self.head(output[0] if isinstance(output, tuple) else output)


def mlp(outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(),
        nn.Linear(512, outputs),
    )  # fmt: skip


def images(last: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Dropout2d(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), last
    )


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 128, 0.1, batch_first=True)
    return Tagger(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "MLP": (lambda: mlp(10), (256, 64), {}),
    "MLP, values": (lambda: mlp(1), (256, 64), {"task": "regression"}),
    "MLP, 1000 classes": (lambda: mlp(1000), (256, 64), {}),
    "CNN": (lambda: images(nn.Sequential(nn.Flatten(), nn.Linear(4096, 10))), (32, 3, 16, 16), {}),
    "segmentation": (lambda: images(nn.Conv2d(16, 19, 1)), (8, 3, 48, 48), {"class_dim": 1}),
    "values of pixels": (lambda: images(nn.Conv2d(16, 19, 1)), (8, 3, 48, 48), {"task": "regression"}),
    "many dropouts": (Blocks, (8, 128, 32), {}),
    "LSTM": (lambda: Tagger(nn.LSTM(64, 64, 2, batch_first=True, dropout=0.3)), (32, 32, 64), {"class_dim": -1}),
    "transformer": (encoder, (32, 32, 64), {"class_dim": -1}),
}


@pytest.mark.parametrize("name", MODELS)
def test_memory_is_that_of_a_pass_with_dropout(name: str) -> None:
    """The peak is at most 1.5 times that of one pass, besides the results and the copy of the inputs."""
    make, shape, settings = MODELS[name]
    model, x = make(), torch.randn(shape)
    predict(model.eval(), x, 3, seed=0, **settings)  # imports and caches

    peak = peak_memory(lambda: predict(model, x, 5, seed=0, **settings))
    result = predict(model, x, 5, seed=0, **settings)

    with torch.no_grad():
        of_pass = peak_memory(lambda: model.train()(x))
    assert peak <= 1.5 * of_pass + x.nbytes + bytes_of(result)
