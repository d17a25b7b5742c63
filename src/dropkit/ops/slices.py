"""Slices: which part of a whole tensor this process holds, so that its mask is that part of the mask of the whole.

A mask index follows from the coordinates in the whole tensor, so a call needs no more than the sizes of the whole and
where its input begins. `dropkit.shard` is the public face. The parts that hold now are a tuple for each thread, from
the outermost to the innermost: an inner part lies in the tensor that the outer ones describe.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import index
from typing import Any, Protocol

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from dropkit.arguments import check
from dropkit.torch_private import may_be_under_vmap

# Mask indices for each rank under `dropkit.shard.different_masks`: no tensor is larger, and 2**15 ranks fit 63 bits.
INDICES_PER_RANK = 2**48


class Whole:
    """The tensor that this process's input is a part of, as far as the parts from the innermost outwards tell.

    Attributes:
        input: what this process holds.
        draws_by_default: whether the call draws its key from torch's default generator.
        input_shape: sizes of the caller's tensor.
        shape: sizes of the whole tensor.
        starts: coordinates, in the whole tensor, of the first element of `input`.
        offset: added to every mask index.
    """

    def __init__(self, input: Tensor, draws_by_default: bool, added_dims: int) -> None:
        self.input, self.draws_by_default = input, draws_by_default
        self.input_shape = tuple(input.shape[: input.dim() - added_dims])
        self.shape: list[int] = list(input.shape)
        self.starts: list[int] = [0] * len(self.shape)
        self.offset = 0

    def dim(self, dim: int) -> int:
        """A dimension of the input, not negative."""
        rank = len(self.input_shape)
        if not -rank <= dim < rank:
            raise IndexError(
                f"dropkit.shard: dim must be a dimension of the input, of shape {self.input_shape}, got {dim}; "
                "put dropout of what is not split under shard.whole()"
            )
        return dim % rank

    def extend(self, dim: int, start: int, total: int) -> None:
        """Make the whole larger along a dimension: what it was begins at `start` of `total`."""
        self.starts[dim] += plain(start)
        self.shape[dim] = plain(total)


def dynamic(number: int) -> int:
    """An int that compiled code takes as it comes, instead of being compiled again for each of its values."""
    module = None if is_dynamo_compiling() else sys.modules.get("torch.fx.experimental.sym_node")
    return getattr(module, "DynamicInt", int)(number)


def plain(number: int) -> int:
    """A number that may be `dynamic`, for eager mode."""
    return number if is_dynamo_compiling() else int(number)


class Part(Protocol):
    """A statement about what this process holds."""

    def place(self, whole: Whole) -> None:
        """Extend the tensor so far to the one that it is a part of."""
        ...


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice of one dimension: this process holds neighbouring indices of it, as many as its tensor has.

    Attributes:
        dim: the dimension; a negative one counts from the last.
        start: the first index.
        total: the size of the whole dimension.

    Raises:
        ValueError: an attribute is no integer, `start` is negative, or greater than `total`.

    Example:
        >>> Slice(dim=0, start=4, total=12)
        Slice(dim=0, start=4, total=12)
    """

    dim: int
    start: int
    total: int

    def __post_init__(self) -> None:
        for name in ("dim", "start", "total"):
            value: Any = getattr(self, name)
            is_int = hasattr(value, "__index__") and not isinstance(value, (bool, Tensor))
            check(name, is_int, "an integer", repr(value))
            object.__setattr__(self, name, value if isinstance(value, int) else index(value))
        check("start", self.start >= 0, "at least 0", self.start)
        check("total", self.total >= self.start, f"at least start, {self.start}", self.total)

    def place(self, whole: Whole) -> None:
        dim = whole.dim(self.dim)
        size, start, total = whole.shape[dim], plain(self.start), plain(self.total)
        if start + size > total:
            raise ValueError(
                f"dropkit.shard: start + size must be at most total, {total}, got {start} + {size} along "
                f"dimension {dim} of an input of shape {whole.input_shape}"
            )
        whole.extend(dim, start, total)


@dataclass(slots=True, eq=False)
class Extent:
    """How much of a dimension this process holds; found once.

    Attributes:
        size: of this process's part; None until it is found.
        start, total: its first index, and the size of the whole dimension.
        find: sets the others, from the input's whole so far and the dimension.
        differing: types of devices whose default generators differ between ranks, with what is wrong.
        shapes: of the wholes that were dropped.
    """

    size: int | None = None
    start: int = 0
    total: int = 0
    find: Callable[[Extent, Whole, int], None] | None = None
    differing: dict[str, str] = field(default_factory=dict[str, str])
    shapes: set[tuple[int, ...]] = field(default_factory=set[tuple[int, ...]])

    def found(self, whole: Whole, dim: int, advice: str) -> int:
        """The size of this process's part."""
        if self.size is None:
            if is_dynamo_compiling():
                raise RuntimeError(f"dropkit.shard: ranks cannot exchange their sizes under torch.compile: {advice}")
            assert self.find is not None
            self.find(self, whole, dim)
            assert self.size is not None
        if whole.draws_by_default and self.differing and whole.input.device.type in self.differing:
            raise RuntimeError(self.differing[whole.input.device.type])
        return plain(self.size)

    def extend(self, whole: Whole, dim: int, for_each: int = 1) -> None:
        """Extend a whole so far, of which each unit of this extent has as many indices as `for_each`."""
        whole.extend(dim, for_each * self.start, for_each * self.total)
        if not is_dynamo_compiling():
            self.shapes.add(tuple(whole.shape))


@dataclass(frozen=True, slots=True)
class Batch:
    """The batch of this process, as a part of the batch of all.

    Attributes:
        extent: in samples.
        dim: the dimension that holds the batch.
        flattened: whether a sample may have several neighbouring indices of the dimension, of one number for all.
        is_across_ranks: whether the whole is the batch of all ranks rather than that of one process.
    """

    extent: Extent
    dim: int
    flattened: bool
    is_across_ranks: bool

    def place(self, whole: Whole) -> None:
        dim = whole.dim(self.dim)
        if may_be_under_vmap():
            raise NotImplementedError(
                "dropkit.shard: the batch must not be split where torch.vmap hides a dimension; in the function that "
                "is mapped, use shard.holding(shard.Slice(...)), which counts the dimensions that the function sees"
            )
        size, extent = whole.shape[dim], self.extent
        samples = extent.found(whole, dim, "pass batch_size= to shard.data_parallel")
        for_each = 1 if samples == 0 else size // samples
        if size != samples * for_each or (for_each != 1 and not self.flattened):
            raise ValueError(self._refusal(dim, samples, whole))
        extent.extend(whole, dim, for_each)

    def _refusal(self, dim: int, samples: int, whole: Whole) -> str:
        wanted = f"a multiple of the batch size, {samples}" if self.flattened else f"the batch size, {samples}"
        return (
            f"dropkit.shard: input of a dropout must have {wanted}, along dimension {dim}, got shape "
            f"{whole.input_shape}. Where batches lie elsewhere, say so for the whole block: dim=1 if sequences "
            "come first, flattened=True if samples are flattened with other dimensions, as in (samples * tokens, "
            "features), sample after sample; or for one layer: shard.batch_dim(layer, ...). Put dropout of what is not "
            "split under shard.whole()"
        )


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one layer that this process holds, as `dropkit.shard.split` found them."""

    extent: Extent
    dim: int

    def place(self, whole: Whole) -> None:
        if hasattr(whole.input, "placements"):
            raise TypeError(
                "dropkit.shard: input of a split layer must be a local tensor, got a DTensor, which knows itself what "
                "this process holds: call shard.unsplit(layer), or give the layer local tensors"
            )
        dim, extent = whole.dim(self.dim), self.extent
        size = whole.shape[dim]
        wanted = extent.found(whole, dim, "pass total= to shard.split, or call the layer once before it is compiled")
        if size != wanted:
            raise ValueError(
                f"dropkit.shard: input of this split layer must have size {wanted} along dimension {dim}, this "
                f"process's part of {plain(extent.total)}, got shape {whole.input_shape}; call shard.split again "
                "where its sizes change"
            )
        extent.extend(whole, dim)


@dataclass(frozen=True, slots=True)
class Replica:
    """One of several processes with masks of their own, as if their tensors were stacked along a first dimension."""

    number: int

    def place(self, whole: Whole) -> None:
        if math.prod(whole.shape) > INDICES_PER_RANK:
            raise ValueError(
                f"dropkit.shard: input must have at most 2**48 elements under different_masks, got shape {whole.shape}"
            )
        whole.offset += self.number * INDICES_PER_RANK


class _State(threading.local):
    def __init__(self) -> None:
        # In __init__ rather than in the class: of objects of a thread, dynamo guards only their own attributes.
        self.parts: tuple[Part, ...] = everywhere


# Whether `dropkit.shard` was imported: calls look for parts only then.
is_used = False
# The parts that a new thread begins with.
everywhere: tuple[Part, ...] = ()
state = _State()


def whole_of(input: Tensor, draws_by_default: bool, added_dims: int = 0) -> Whole:
    """The whole that `input` is a part of, by this thread's parts; see `Layer.added_dims`."""
    whole = Whole(input, draws_by_default, added_dims)
    for part in reversed(state.parts):
        part.place(whole)
    return whole


def is_empty(input: Tensor) -> bool:
    """Whether the whole that an empty `input` is a part of is empty, so that no process draws a key."""
    return not is_used or len(state.parts) == 0 or 0 in whole_of(input, False).shape


class Holding:
    """Sets this thread's parts for a `with` block."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts = parts

    def __enter__(self) -> None:
        self._before = state.parts
        state.parts = self._parts

    def __exit__(self, *_: object) -> None:
        state.parts = self._before


def refuse(where: str) -> None:
    """Raise where a mask would not follow the parts that are stated.

    Raises:
        NotImplementedError: there are parts.
    """
    if is_used and state.parts:
        raise NotImplementedError(
            f"dropkit.shard: {where} masks do not follow what is stated about this process; leave "
            "the block, or call shard.unsplit(layer)"
        )
