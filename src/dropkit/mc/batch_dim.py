"""BatchDim: along which dimension of a tensor the inputs of a batch lie, found by rolling the inputs.

A model may put its inputs first, second (sequence first), or fold them into one dimension with heads or tokens. If the
inputs are rolled by one, the values that belong to them roll along their dimension, whichever it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# How far values that have been rolled may differ, as a fraction of the largest: sums may be in another order.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_TOLERANCE_OF_HALF = 3e-2
# The numbers that a sketch keeps of each input: far more than it takes to tell inputs apart.
_NUMBERS_OF_INPUT = 2**12


@dataclass(frozen=True, slots=True)
class BatchDim:
    """Where the inputs of a batch lie in a tensor.

    Attributes:
        dim: the dimension; its size is a multiple of the number of inputs.
        inputs_first: where the size is a larger multiple, whether the dimension is (inputs, others) folded together,
            or (others, inputs).
    """

    dim: int
    inputs_first: bool = True

    def unfold(self, shape: Sequence[int], count: int) -> tuple[tuple[int, ...], int]:
        """The shape with the inputs in a dimension of their own, and that dimension.

        Raises:
            ValueError: the dimension does not hold so many inputs.

        Example:
            >>> BatchDim(0).unfold((6, 4), 3), BatchDim(0, False).unfold((6, 4), 3), BatchDim(1).unfold((2, 3), 3)
            (((3, 2, 4), 0), ((2, 3, 4), 1), ((2, 3), 1))
        """
        others, remainder = divmod(shape[self.dim], count) if self.dim < len(shape) else (0, 1)
        if remainder:
            raise ValueError(f"dimension {self.dim} of {tuple(shape)} must hold {count} inputs")
        if others == 1:
            return tuple(shape), self.dim
        parts = (count, others) if self.inputs_first else (others, count)
        return (*shape[: self.dim], *parts, *shape[self.dim + 1 :]), self.dim + (not self.inputs_first)


@dataclass(frozen=True, slots=True)
class SmallerBatch:
    """The same tensor in a batch with fewer inputs.

    Attributes:
        shape: of the tensor; None if it is not known.
        count: how many inputs there are.
    """

    shape: Sequence[int] | None
    count: int


@dataclass(frozen=True, slots=True)
class Sketch:
    """What a probe keeps of a tensor, so that its many sites need little memory.

    Attributes:
        shape: of the tensor.
        tolerance: how far values may differ, as a fraction of the largest.
        rows: for each possible batch dimension, the likeliest first, a row for each input: its values, or weighted sums
            of neighbours among them where there are many.
    """

    shape: torch.Size
    tolerance: float
    rows: Mapping[BatchDim, Tensor]

    @staticmethod
    def of(values: Tensor, count: int, smaller: SmallerBatch) -> Sketch:
        """Make a sketch of a tensor for `count` inputs."""
        if not values.is_floating_point():
            values = values.to(torch.complex128 if values.is_complex() else torch.float64)
        tolerance = _TOLERANCE.get(values.dtype, _TOLERANCE_OF_HALF)
        rows: dict[BatchDim, Tensor] = {}
        for batch_dim in fitting_shape(values.shape, count, smaller):
            shape, dim = batch_dim.unfold(values.shape, count)
            rows[batch_dim] = _weighted_sums(values.reshape(shape).movedim(dim, 0).flatten(1))
        return Sketch(values.shape, tolerance, rows)

    def fitting(self, after: Sketch) -> list[BatchDim]:
        """Return the possible batch dimensions by the values, the likeliest first.

        There is none if no dimension was rolled, as where a model mixes or sorts its inputs; there are several if the
        inputs are alike.

        Args:
            after: the tensor for the same inputs rolled by one.
        """
        if self.shape != after.shape:
            return []

        def fits(before: Tensor, after: Tensor) -> bool:
            tolerance = self.tolerance * _largest(before)
            return torch.allclose(after, before.roll(1, 0), rtol=0, atol=tolerance, equal_nan=True)

        return [batch_dim for batch_dim, rows in self.rows.items() if fits(rows, after.rows[batch_dim])]


def _weighted_sums(rows: Tensor) -> Tensor:
    """Return a copy of the rows, or sums of so many neighbours that few numbers are left.

    The signs of the weights are irregular, so that differences do not cancel, and their squares sum to 1: many small
    differences, as by rounding, keep their size.
    """
    size = -(-rows.shape[1] // _NUMBERS_OF_INPUT)
    if size <= 1:
        return rows.clone()
    if rows.dtype.itemsize < 4:
        rows = rows.float()
    weights = (torch.arange(1, size + 1, dtype=torch.float64).square().cos().sign() / size**0.5).to(rows)
    whole = rows.shape[1] // size * size
    return torch.cat([rows[:, :whole].unflatten(1, (-1, size)) @ weights, rows[:, whole:]], 1)


def tolerance_of(values: Tensor) -> float:
    """How far values that are computed in another batch may differ."""
    return _TOLERANCE.get(values.dtype, _TOLERANCE_OF_HALF) * _largest(values)


def _largest(values: Tensor) -> float:
    return float(values.abs().nan_to_num().max()) if values.numel() else 0.0


def fitting_shape(shape: Sequence[int], count: int, smaller: SmallerBatch) -> list[BatchDim]:
    """Return the possible batch dimensions by the shape alone, as for a mask that is not computed from the inputs.

    Dimensions whose size is the number of inputs come first, then those whose size is a multiple of it. The size must
    also follow the number of inputs.

    Example:
        >>> fitting_shape((6, 3), 3, SmallerBatch((4, 3), 2))
        [BatchDim(dim=0, inputs_first=True), BatchDim(dim=0, inputs_first=False)]
    """
    sizes = dict(enumerate(shape))
    if smaller.shape is not None and len(smaller.shape) == len(shape):
        sizes = {dim: size for dim, size in sizes.items() if size * smaller.count == smaller.shape[dim] * count}
    exact = [BatchDim(dim) for dim, size in sizes.items() if size == count]
    multiples = [dim for dim, size in sizes.items() if size > count and size % count == 0]
    return exact + [BatchDim(dim, inputs_first) for inputs_first in (True, False) for dim in multiples]
