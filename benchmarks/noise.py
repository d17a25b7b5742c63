"""Is noise from a key faster than by the formulas of Keras?

GaussianDropout and GaussianNoise of 2**20 elements, forward, and forward and backward, on one thread and on two. The
formulas are those of Keras' layers in torch: a tensor of normal numbers that is multiplied, or scaled and added.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from side_by_side import Row, faster, threads
from torch import Tensor

from dropkit.functional import gaussian_dropout, gaussian_noise

SIZE, P, STD = 2**20, 0.5, 0.1


def rows() -> list[Row]:
    found: list[Row] = []
    for count in (1, 2):
        with threads(count):
            found += _rows(f"{count} thread{'s' if count > 1 else ''}")
    return found


def _rows(where: str) -> list[Row]:
    std = (P / (1 - P)) ** 0.5
    sides: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
        "GaussianDropout": (lambda x: gaussian_dropout(x, P), lambda x: x * torch.normal(1.0, std, x.shape)),
        "GaussianNoise": (lambda x: gaussian_noise(x, STD), lambda x: x + STD * torch.randn_like(x)),
    }
    x, upstream, leaf = torch.randn(SIZE), torch.randn(SIZE), torch.randn(SIZE, requires_grad=True)
    found: list[Row] = []
    for name, (ours, theirs) in sides.items():
        found.append(faster(f"{name}, {where}", partial(ours, x), partial(theirs, x), ">= 1", runs=21))
        both = partial(_step, ours, leaf, upstream), partial(_step, theirs, leaf, upstream)
        found.append(faster(f"{name}, forward and backward, {where}", *both, ">= 1", runs=21))
    return found


def _step(call: Callable[[Tensor], Tensor], leaf: Tensor, upstream: Tensor) -> None:
    torch.autograd.grad(call(leaf), leaf, upstream)
