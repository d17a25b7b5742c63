"""Which part of a DTensor this rank holds, by torch's rules for dividing a tensor among the ranks of a mesh.

The arithmetic is that of `torch.chunk`, for sizes and ranks that may be symbols, as compilers and
simulations have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch

from dropkit.kernels.mask import row_major

# The indices of a dimension that a rank holds, as (start, length) of runs of neighbours.
Runs = tuple[tuple[int, int], ...]


class Part(NamedTuple):
    """What this rank holds of a DTensor.

    Attributes:
        runs: for each dimension, its indices.
        local_shape: its sizes; None if sizes or the rank are symbols.
        strides: row-major strides of the whole tensor.
        offset: row-major index of this rank's first element in the whole tensor.
        is_one_slice: whether this rank's elements are neighbours in row-major order.
        stride: strides of a tensor that is like the DTensor; None if they are the DTensor's.
    """

    runs: tuple[Runs, ...]
    local_shape: tuple[int, ...] | None
    strides: tuple[int, ...]
    offset: int
    is_one_slice: bool
    stride: tuple[int, ...] | None

    def like(self, spec: Any) -> Any:
        """The description of a tensor that is like the DTensor of this description, on the very same mesh."""
        if self.stride is None:
            return spec
        return type(spec)(spec.mesh, spec.placements, tensor_meta=spec.tensor_meta._replace(stride=self.stride))


def part_of(spec: Any, coordinate: Sequence[int]) -> Part:
    """The part of the rank at this place of the mesh, of a DTensor with this description.

    Raises:
        NotImplementedError: a placement is none of torch's.
    """
    coordinate = tuple(coordinate)
    return (_cached if _are_ints(*spec.shape, *spec.stride, *coordinate) else _part_of)(spec, coordinate)


def is_plain(placement: Any, name: str) -> bool:
    """Whether a placement is of torch's class of this name, and of no other that derives from it."""
    return type(placement).__name__ == name


def _part_of(spec: Any, coordinate: tuple[int, ...]) -> Part:
    shape = tuple(spec.shape)
    runs: list[Runs] = [((0, size),) for size in shape]
    for mesh_dim in _order(spec):
        placement: Any = spec.placements[mesh_dim]
        if is_plain(placement, "Shard") or is_plain(placement, "_StridedShard"):
            dim: int = placement.dim
            pieces = int(getattr(placement, "split_factor", 1))
            runs[dim] = _take(runs[dim], pieces, spec.mesh.size(mesh_dim), coordinate[mesh_dim])
        elif not (placement.is_replicate() or placement.is_partial()):
            raise NotImplementedError(f"input must have placements of torch's own, got {placement}")
    strides = row_major(shape)
    first = sum(of_dim[0][0] * stride for of_dim, stride in zip(runs, strides, strict=True))
    local_shape = tuple(sum(length for _, length in of_dim) for of_dim in runs)
    is_whole = [of_dim == ((0, size),) for of_dim, size in zip(runs, shape, strict=True)]
    is_one_slice = all(len(of_dim) == 1 for of_dim in runs) and all(is_whole[1:])
    known_shape = local_shape if _are_ints(*local_shape) else None
    return Part(tuple(runs), known_shape, strides, first, is_one_slice, _other_stride(spec))


_cached = lru_cache(maxsize=1024)(_part_of)


def _are_ints(*numbers: Any) -> bool:
    return all(type(number) is int for number in numbers)


def _order(spec: Any) -> Sequence[int]:
    """The dimensions of the mesh in the order in which they divide the tensor: from left to right, if not stated."""
    # The split factors of strided shards say it already; torch 2.10 states the order that they stand for besides.
    if any(is_plain(placement, "_StridedShard") for placement in spec.placements):
        return range(len(spec.placements))
    stated = [mesh_dim for entry in getattr(spec, "shard_order", None) or () for mesh_dim in entry.mesh_dims]
    return [*stated, *(mesh_dim for mesh_dim in range(len(spec.placements)) if mesh_dim not in stated)]


def _take(runs: Runs, pieces: int, chunks: int, index: int) -> Runs:
    """The part with this index, of as many as `chunks`, of each of as many pieces, all cut as by `torch.chunk`.

    `Shard` has one piece, and `_StridedShard` as many as its split factor.
    """
    size = sum(length for _, length in runs)
    piece = (size + pieces - 1) // pieces
    taken: list[tuple[int, int]] = []
    for number in range(pieces):
        begin = _smaller(piece * number, size)
        end = _smaller(begin + piece, size)
        chunk = (end - begin + chunks - 1) // chunks
        first = _smaller(begin + chunk * index, end)
        taken.extend(_between(runs, first, _smaller(first + chunk, end)))
    return tuple(taken) or ((0, 0),)


def _smaller(first: int, second: int) -> int:
    return cast("int", cast("Any", torch).sym_min(first, second))


def _between(runs: Runs, first: int, last: int) -> Runs:
    """The indices at positions from `first` to before `last` of all indices in the runs."""
    if len(runs) == 1:
        ((start, _),) = runs
        return () if _are_ints(first, last) and first == last else ((start + first, last - first),)
    found: list[tuple[int, int]] = []
    for start, length in runs:
        begin, end = max(first, 0), min(last, length)
        if begin < end:
            found.append((start + begin, end - begin))
        first, last = first - length, last - length
    return tuple(found)


def _other_stride(spec: Any) -> tuple[int, ...] | None:
    """The strides that `torch.empty_like` gives; None if it keeps them."""
    if tuple(spec.stride) == row_major(spec.shape):
        return None
    stride = torch.empty_like(torch.empty_strided(spec.shape, spec.stride, device="meta")).stride()
    return None if stride == tuple(spec.stride) else stride
