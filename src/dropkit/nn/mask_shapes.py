"""Mask shapes: which elements of an input share one mask element.

A mask shape has the sizes of the input, and 1 along each dimension whose elements are kept or dropped together.
"""

from __future__ import annotations

from torch import Tensor

MaskShape = tuple[int, ...]


def per_sample(input: Tensor) -> MaskShape:
    """One mask element for each sample: dimension 0."""
    if input.dim() < 1:
        raise RuntimeError("input must have at least 1 dimension, the batch, got a 0-d tensor")
    return (input.shape[0],) + (1,) * (input.dim() - 1)


def per_channel(input: Tensor) -> MaskShape:
    """One mask element for each channel of each sample: dimensions 0 and 1."""
    if input.dim() < 2:
        raise RuntimeError(_TOO_FEW)
    return tuple(input.shape[:2]) + (1,) * (input.dim() - 2)


def per_unbatched_channel(input: Tensor) -> MaskShape:
    """One mask element for each channel of an input without a batch: dimension 0."""
    if input.dim() < 1:
        raise RuntimeError(_TOO_FEW)
    return (input.shape[0],) + (1,) * (input.dim() - 1)


# torch's own words, for every layer that drops channels.
_TOO_FEW = "Feature dropout requires at least 2 dimensions in the input"
