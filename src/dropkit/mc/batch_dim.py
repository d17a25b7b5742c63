"""Layouts: along which dimension of a tensor the inputs of a batch lie, found by trying.

A model may put its inputs where it likes: first, second (sequence first), or folded into one dimension with heads or
tokens. Roll the inputs, and what belongs to them rolls along: the dimension for which that holds is the one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Equal up to what another order of sums may do, as a fraction of the largest value.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_COARSE = 3e-2


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the inputs lie.

    Attributes:
        dim: the dimension; its size is a multiple of the number of inputs.
        outer: of a larger multiple, whether each input's entries are neighbours (True) or lie a batch apart.
    """

    dim: int
    outer: bool = True

    def axis(self, shape: Sequence[int], count: int) -> tuple[tuple[int, ...], int]:
        """The shape with the inputs in a dimension of their own, and which one that is.

        Raises:
            ValueError: the dimension does not hold so many inputs.

        Example:
            >>> Layout(0).axis((6, 4), 3), Layout(0, outer=False).axis((6, 4), 3), Layout(1).axis((2, 3), 3)
            (((3, 2, 4), 0), ((2, 3, 4), 1), ((2, 3), 1))
        """
        copies, rest = divmod(shape[self.dim], count) if self.dim < len(shape) else (0, 1)
        if rest:
            raise ValueError(f"dimension {self.dim} of {tuple(shape)} must hold {count} inputs")
        if copies == 1:
            return tuple(shape), self.dim
        parts = (count, copies) if self.outer else (copies, count)
        return (*shape[: self.dim], *parts, *shape[self.dim + 1 :]), self.dim + (not self.outer)


def fitting(before: Tensor, after: Tensor, count: int, fewer: Sequence[int] | None, fewer_count: int) -> list[Layout]:
    """The layouts that a tensor may have, the likeliest first.

    There is none if nothing in it rolled along, the inputs being mixed or sorted; there are several if they are alike.

    Args:
        before, after: computed from `count` inputs, and again from the same, rolled by one.
        fewer: the shape that came of `fewer_count` inputs, if that is known.
    """
    if before.shape != after.shape:
        return []
    if not before.is_floating_point():
        before, after = before.double(), after.double()
    allowed = _TOLERANCE.get(before.dtype, _COARSE) * float(before.abs().nan_to_num().max()) if before.numel() else 0.0
    found: list[Layout] = []
    for layout in by_shape(before.shape, count, fewer, fewer_count):
        shape, axis = layout.axis(before.shape, count)
        expected = before.reshape(shape).roll(1, axis)
        if torch.allclose(after.reshape(shape), expected, rtol=0, atol=allowed, equal_nan=True):
            found.append(layout)
    return found


def by_shape(shape: Sequence[int], count: int, fewer: Sequence[int] | None, fewer_count: int) -> list[Layout]:
    """The same of a tensor that was computed from no input, such as a mask made by hand.

    A dimension of just as many as inputs comes first, then one that holds them as blocks. It must follow their number.

    Example:
        >>> by_shape((6, 3), 3, (4, 3), 2)
        [Layout(dim=0, outer=True), Layout(dim=0, outer=False)]
    """
    sizes = dict(enumerate(shape))
    if fewer is not None and len(fewer) == len(shape):
        sizes = {dim: size for dim, size in sizes.items() if size * fewer_count == fewer[dim] * count}
    exact = [Layout(dim) for dim, size in sizes.items() if size == count]
    blocks = [dim for dim, size in sizes.items() if size > count and size % count == 0]
    return exact + [Layout(dim, outer) for outer in (True, False) for dim in blocks]
