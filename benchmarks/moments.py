"""How much faster is one pass of moment propagation than 50 samples?

`mc.propagate` is compared with `mc.predict` with 50 samples of the same model, both with the basic measures
(`plain=False`), on one thread. Probabilities are means over 100 draws of the outputs, values have a closed form. The
ratio says how many times faster `propagate` is.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from mc_loop import digits, mlp, segmentation
from side_by_side import Row, faster, threads
from torch import Tensor, nn

import dropkit

THREADS = 1


def rows() -> list[Row]:
    torch.manual_seed(0)
    cases: list[tuple[str, nn.Module, Tensor, dict[str, Any]]] = [
        ("MLP 784-512-512-10, 500 inputs", mlp(784, 512, 10, 0.5), torch.randn(500, 784), {}),
        (
            "MLP 13-100-100-1, 500 inputs, values",
            mlp(13, 100, 1, 0.1),
            torch.randn(500, 13),
            {"task": "regression"},
        ),
        ("CNN of digits, 50 inputs", digits(), torch.randn(50, 1, 28, 28), {}),
        ("MLP 784-512-512-10, one input", mlp(784, 512, 10, 0.5), torch.randn(1, 784), {}),
        (
            "19 values for each of 96x96 pixels, 2 images",
            segmentation(),
            torch.randn(2, 3, 96, 96),
            {"task": "regression"},
        ),
    ]
    with threads(THREADS):
        return [compared(name, model.eval(), inputs, options) for name, model, inputs, options in cases]


def compared(name: str, model: nn.Module, inputs: Tensor, options: dict[str, Any]) -> Row:
    common = {"seed": 0, "measures": "basic", "plain": False, "progress": False, **options}
    propagate: Any = partial(dropkit.mc.propagate, model, inputs, **common)
    predict: Any = partial(dropkit.mc.predict, model, inputs, 50, **common)
    return faster(name, propagate, predict, ">= 1", runs=3)
