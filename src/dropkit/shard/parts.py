"""Parts: the statements about what this process holds, as `nn/draw_mask.py` applies them to an input."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import index
from typing import Any, cast

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from dropkit.arguments import check
from dropkit.ops import slices
from dropkit.ops.slices import Whole
from dropkit.torch_private import dynamo_is_loaded, may_be_under_vmap

# Mask indices for each rank under `dropkit.shard.different_masks`: no tensor is larger, and 2**15 ranks fit 63 bits.
INDICES_PER_RANK = 2**48


def dynamic(number: int) -> int:
    """An int that compiled code takes as it comes, instead of being compiled again for each of its values."""
    module = None if is_dynamo_compiling() else sys.modules.get("torch.fx.experimental.sym_node")
    return getattr(module, "DynamicInt", int)(number)


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
        size, start, total = whole.shape[dim], slices.plain(self.start), slices.plain(self.total)
        if start + size > total:
            raise ValueError(
                f"dropkit.shard: start + size must be at most total, {total}, got {start} + {size} along "
                f"dimension {dim} of an input of shape {whole.input_shape}"
            )
        whole.extend(dim, start, total)

    def of_unsplit(self) -> None:
        return None


@dataclass(slots=True, eq=False)
class Extent:
    """How much of a dimension this process holds; found once.

    Attributes:
        size: of this process's part; None until it is found.
        start, total: its first index, and the size of the whole dimension.
        find: sets the others, from the input's whole so far and the dimension.
        ranks: of the group whose parts these are; empty if none was asked.
        differing: types of devices whose default generators differ between ranks, with what is wrong.
        shapes: of the wholes that were dropped, if it is that of a batch.
        has_counted: whether any dropout has asked for it; not known of compiled code.
    """

    size: int | None = None
    start: int = 0
    total: int = 0
    find: Callable[[Extent, Whole, int], None] | None = None
    ranks: frozenset[int] = frozenset()
    differing: dict[str, str] = field(default_factory=dict[str, str])
    shapes: set[tuple[int, ...]] = field(default_factory=set[tuple[int, ...]])
    has_counted: bool = False

    def found(self, whole: Whole, dim: int, advice: str) -> int:
        """The size of this process's part."""
        if self.size is None:
            if is_dynamo_compiling():
                raise RuntimeError(f"dropkit.shard: ranks cannot exchange their sizes under torch.compile: {advice}")
            assert self.find is not None
            # Called from code that is compiled in pieces, it would be compiled, too.
            find: Any = cast("Any", torch.compiler.disable)(self.find) if dynamo_is_loaded() else self.find
            find(self, whole, dim)
            assert self.size is not None
        if whole.draws_from == "default" and self.differing and whole.input.device.type in self.differing:
            raise RuntimeError(self.differing[whole.input.device.type])
        return slices.plain(self.size)

    def extend(self, whole: Whole, dim: int, for_each: int = 1) -> None:
        """Extend a whole so far, of which each unit of this extent has as many indices as `for_each`."""
        whole.extend(dim, for_each * self.start, for_each * self.total)
        if not is_dynamo_compiling():
            self.has_counted = True


def _refuse_spanning(input: Any, ranks: frozenset[int], block: str) -> None:
    """Raise TypeError for a DTensor that spans several of these ranks, the group of a block."""
    if is_dynamo_compiling() or not hasattr(input, "placements"):
        return
    if len(ranks.intersection(input.device_mesh.mesh.flatten().tolist())) > 1:
        raise TypeError(
            f"dropkit.shard: input must be a local tensor or a DTensor of this rank's samples in {block}, got a "
            "DTensor that spans several ranks of the group and knows itself what each holds; leave the block, or pass "
            "the group of ranks that hold other samples"
        )


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
        if whole.draws_from == "generator" and not self.is_across_ranks:
            raise NotImplementedError(
                "dropkit.shard: generator must be None in micro_batches, which restart torch's default generators "
                "alone; pass key="
            )
        _refuse_spanning(whole.input, self.extent.ranks, "data_parallel")
        size, extent = whole.shape[dim], self.extent
        samples = extent.found(whole, dim, "pass batch_size= to shard.data_parallel")
        for_each = 1 if samples == 0 else size // samples
        if size != samples * for_each or (for_each != 1 and not self.flattened):
            raise ValueError(self._refusal(dim, samples, whole))
        extent.extend(whole, dim, for_each)
        if not is_dynamo_compiling():
            self._refuse_ranks_of_units(extent.ranks & whole.unit_ranks)
            extent.shapes.add(tuple(whole.shape))

    def of_unsplit(self) -> None:
        if not is_dynamo_compiling():
            self.extent.has_counted = True

    def _refuse_ranks_of_units(self, ranks: frozenset[int]) -> None:
        if len(ranks) > 1:  # more than this one
            raise RuntimeError(
                "dropkit.shard: group of data_parallel must be of ranks that hold other samples, got one with ranks "
                f"{', '.join(map(str, sorted(ranks)))}, which hold other units of a split layer: pass the group of "
                "ranks that hold the same units"
            )

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
                f"process's part of {slices.plain(extent.total)}, got shape {whole.input_shape}; call shard.split "
                "again where its sizes change"
            )
        extent.extend(whole, dim)
        if not is_dynamo_compiling():
            whole.unit_ranks |= extent.ranks

    def of_unsplit(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Replica:
    """One of several processes with masks of their own, as if their tensors were stacked along a first dimension."""

    number: int
    ranks: frozenset[int]

    def place(self, whole: Whole) -> None:
        _refuse_spanning(whole.input, self.ranks, "different_masks")
        if math.prod(whole.shape) > INDICES_PER_RANK:
            raise ValueError(
                f"dropkit.shard: input must have at most 2**48 elements under different_masks, got shape {whole.shape}"
            )
        whole.offset += self.number * INDICES_PER_RANK

    def of_unsplit(self) -> Replica:
        return self
