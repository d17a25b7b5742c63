"""Count what a mask drops, and store its first elements, which identify it."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2, prod
from typing import cast

import torch
from torch import Tensor, nn

from dropkit.trace import Visit

_START = 4096
# What masks add to scores that softmax shall make zero is far below any score.
_VERY_NEGATIVE = -1e3


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of a tensor; () for a nested tensor."""
    return () if tensor.is_nested else tuple(tensor.shape)


def count(visit: Visit, keep: Tensor, input: Tensor) -> None:
    """Add a mask that broadcasts with an input to the counts of `visit`; zero or false means dropped."""
    if keep.is_nested:
        keep = input = keep.values()
    input_shape = tuple(input.shape)
    mask_elements = keep.numel()
    if mask_elements == 0 or type(keep) not in (Tensor, nn.Parameter):
        # A subclass may define its own counting.
        return
    dropped = mask_elements - int(torch.count_nonzero(keep))
    mask_shape = (1,) * (len(input_shape) - keep.dim()) + tuple(keep.shape)
    shape, mask_shape = _without_added_dim(visit.shape, input_shape, mask_shape)
    if not visit.mask_elements:
        visit.shape, visit.mask_shape = shape, mask_shape
        note_start(visit, keep, dropped / mask_elements)
    visit.dropped = (visit.dropped or 0) + dropped
    visit.mask_elements += mask_elements
    visit.dropped_elements += dropped * prod(shape) // mask_elements


def count_missing(visit: Visit, input: Tensor, output: Tensor) -> bool:
    """Count tokens, (N, L, D), that a dropout leaves out of its output; return whether there are any.

    Random numbers inside decide which, so what was counted of them is no mask.
    """
    before, after = shape_of(input), shape_of(output)
    if len(before) != 3 or len(after) != 3 or before[::2] != after[::2] or after[1] >= before[1]:
        return False
    samples, length, _ = before
    visit.shape, visit.mask_shape = before, (samples, length, 1)
    visit.mask_elements, visit.dropped = samples * length, samples * (length - after[1])
    visit.dropped_elements = input.numel() - output.numel()
    visit.is_active, visit.is_independent, visit.covers, visit.mask_start = True, False, "token", None
    return True


def count_zeros(visit: Visit, input: Tensor, output: Tensor) -> None:
    """Count elements that are zero in the output alone, if there are any: blocks around the seeds that a mask holds."""
    if input.shape != output.shape or not output.is_floating_point() or output.is_nested:
        return
    candidates = input != 0
    count = int(((output == 0) & candidates).sum())
    if count:
        visit.shape = visit.mask_shape = shape_of(input)
        visit.mask_elements, visit.dropped, visit.dropped_elements = int(candidates.sum()), count, count
        visit.is_independent, visit.covers, visit.mask_start = False, "block", None


def note_start(visit: Visit, keep: Tensor, rate: float) -> None:
    """Store the first elements of a mask."""
    start = (keep.reshape(-1)[:_START] != 0).to(torch.uint8)
    visit.mask_start, visit.entropy = bytes(cast("list[int]", start.tolist())), start.numel() * _entropy(rate)


def factor(keep: Tensor) -> float | None:
    """Return what a mask multiplies kept elements by; None if that is not one number."""
    kept = (keep.values() if keep.is_nested else keep).detach().reshape(-1)
    kept = kept[kept != 0]
    if kept.numel() == 0 or bool((kept != kept[0]).any()):
        return None
    return float(kept[0])


def kind(input: Tensor) -> str:
    """Return "binary" for zeros and ones, "additive" for zeros and very negative numbers, "" for anything else."""
    values = (input.values() if input.is_nested else input).detach()
    if type(values) not in (Tensor, nn.Parameter) or values.numel() < 2 or values.is_complex():
        return ""
    low, high = (float(value) for value in torch.aminmax(values))
    if (low, high) == (0, 1):
        return "" if bool(((values != 0) & (values != 1)).any()) else "binary"
    is_between = (values != 0) & (values >= _VERY_NEGATIVE)
    return "additive" if low < _VERY_NEGATIVE and high == 0 and not bool(is_between.any()) else ""


def without_shared(keep: Tensor, strides: Sequence[int] | None) -> Tensor:
    """Reduce a mask with one entry for each input element to one entry for each mask element.

    Args:
        keep: mask of the input's shape.
        strides: mask strides, 0 on shared dimensions.
    """
    for dim, stride in enumerate(strides or ()):
        if stride == 0:
            keep = keep.narrow(dim, 0, 1)
    return keep


def _without_added_dim(
    given: tuple[int, ...], shape: tuple[int, ...], mask_shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return input and mask shape without a dimension that the function itself added.

    A first one of size 1 for inputs without a batch, a last one for the two parts of complex numbers.
    """
    if len(shape) == len(given) + 1 and shape == (1, *given):
        return given, mask_shape[1:]
    if len(shape) == len(given) + 1 and shape == (*given, 2):
        return given, mask_shape[:-1]
    return shape, mask_shape


def _entropy(rate: float) -> float:
    """Return the entropy of one mask element in bits."""
    return 0.0 if rate in (0.0, 1.0) else -rate * log2(rate) - (1 - rate) * log2(1 - rate)
