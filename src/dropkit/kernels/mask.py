"""One dropout mask: the record that layers hand down to the kernels.

The mask is never stored. It follows from the key, and an element's place in it follows from the element's coordinates.
`kernels/reference.py` computes it in plain torch: the random word of each mask element, and whether that keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from dropkit.kernels.key import Key, batch_shape
from dropkit.kernels.params import Params


class Mask(NamedTuple):
    """Which elements of a tensor are kept, and what kept and dropped ones become.

    A tuple, because the compiled kernel reads its items by position.

    Attributes:
        key: 64 bits, an int or a 0-d int64 tensor; or a pair, see `kernels/key.py`; or a tensor of either, with
            the first sizes of the input: then each slice along these dimensions has a key of its own.
        params: when a mask element drops, or how its random number is used, and the numbers that follow.
        strides: one for each dimension of the tensor, 0 where all elements along it share a mask element; None for
            the row-major strides of the tensor's shape. The element at some coordinates uses the mask element of index
            `offset + sum(coordinate * stride)`.
        offset: mask index of the first element.
    """

    key: Key
    params: Params
    strides: Sequence[int] | None = None
    offset: int = 0

    @property
    def slice_dims(self) -> int:
        """How many of the first dimensions choose the key."""
        return len(batch_shape(self.key)) if isinstance(self.key, Tensor) else 0

    def strides_for(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The strides of the mask for a tensor of this shape."""
        return row_major(shape) if self.strides is None else tuple(self.strides)

    @property
    def gradient(self) -> Mask:
        """The derivative of dropout by this mask: the same mask, without additive constants."""
        params = self.params.gradient
        return self if params is self.params else self._replace(params=params)


def mask_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides of a mask of this shape, 0 along dimensions of size 1, which the tensor's elements share."""
    strides, stride = [0] * len(shape), 1
    for dim in range(len(shape) - 1, -1, -1):
        if shape[dim] != 1:
            strides[dim] = stride
            stride *= shape[dim]
    return tuple(strides)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides of a tensor of this shape, with a mask element for each of its elements."""
    strides = [1] * len(shape)
    for dim in range(len(shape) - 2, -1, -1):
        strides[dim] = strides[dim + 1] * shape[dim + 1]
    return tuple(strides)
