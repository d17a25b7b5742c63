"""Masks, once they are seen: which units share a coin, how many dropped, and the first coins to know them again by."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2, prod
from typing import cast

import torch
from torch import Tensor, nn

from dropkit.trace import Visit

_FIRST = 4096


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The sizes of a tensor; of one that has no such thing none."""
    return () if tensor.is_nested else tuple(tensor.shape)


def measure(visit: Visit, keep: Tensor, input: Tensor) -> None:
    """Add a mask that broadcasts with an input to what `visit` counts; zero or false is dropped."""
    if keep.is_nested:
        keep = input = keep.values()
    input_shape = tuple(input.shape)
    coins = keep.numel()
    if coins == 0 or type(keep) not in (Tensor, nn.Parameter):
        # Of subclasses each has its own idea of how to count.
        return
    dropped = coins - int(torch.count_nonzero(keep))
    elements = prod(input_shape)
    unit = (1,) * (len(input_shape) - keep.dim()) + tuple(keep.shape)
    shape, unit = _as_given(visit.shape, input_shape, unit)
    if not visit.coins:
        visit.shape, visit.unit = shape, unit
        recognize(visit, keep, dropped / coins)
    visit.dropped = (visit.dropped or 0) + dropped
    visit.coins += coins
    visit.elements += dropped * elements // coins


def recognize(visit: Visit, keep: Tensor, rate: float) -> None:
    """Remember the first coins of a mask."""
    first = (keep.reshape(-1)[:_FIRST] != 0).to(torch.uint8)
    visit.keep, visit.chance = bytes(cast("list[int]", first.tolist())), first.numel() * _entropy(rate)


def shared(keep: Tensor, steps: Sequence[int] | None) -> Tensor:
    """One element for each coin of a mask that has one for each element, where `steps` is 0 on shared dimensions."""
    for dim, step in enumerate(steps or ()):
        if step == 0:
            keep = keep.narrow(dim, 0, 1)
    return keep


def _as_given(
    given: tuple[int, ...], shape: tuple[int, ...], unit: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same without a first dimension that the function itself had added."""
    if len(shape) == len(given) + 1 and shape == (1, *given):
        return given, unit[1:]
    return shape, unit


def _entropy(rate: float) -> float:
    return 0.0 if rate in (0.0, 1.0) else -rate * log2(rate) - (1 - rate) * log2(1 - rate)
