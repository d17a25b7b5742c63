"""Mask shapes: which elements of an input share one mask element.

A mask shape has the sizes of the input, and 1 along each dimension whose elements are kept or dropped together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

MaskShape = tuple[int, ...]
# From the shape of an input to the shape of its mask.
MakeMaskShape = Callable[[Sequence[int]], MaskShape]


def per_sample(shape: Sequence[int]) -> MaskShape:
    """One mask element for each sample: dimension 0."""
    if len(shape) < 1:
        raise RuntimeError(_NO_BATCH)
    return (shape[0],) + (1,) * (len(shape) - 1)


def per_batch(shape: Sequence[int]) -> MaskShape:
    """One mask element for all samples."""
    if len(shape) < 1:
        raise RuntimeError(_NO_BATCH)
    return (1,) * len(shape)


def per_channel(shape: Sequence[int]) -> MaskShape:
    """One mask element for each channel of each sample: dimensions 0 and 1."""
    if len(shape) < 2:
        raise RuntimeError(_TOO_FEW)
    return tuple(shape[:2]) + (1,) * (len(shape) - 2)


def per_unbatched_channel(shape: Sequence[int]) -> MaskShape:
    """One mask element for each channel of an input without a batch: dimension 0."""
    if len(shape) < 1:
        raise RuntimeError(_TOO_FEW)
    return (shape[0],) + (1,) * (len(shape) - 1)


# torch's own words, for every layer that drops channels.
_TOO_FEW = "Feature dropout requires at least 2 dimensions in the input"
_NO_BATCH = "input must have at least 1 dimension, the batch, got a 0-d tensor"
