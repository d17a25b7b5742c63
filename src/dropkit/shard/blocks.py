"""Blocks that state what this process holds, for the dropout in them."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from operator import index
from typing import Any

from torch import distributed
from torch.compiler import is_dynamo_compiling

from dropkit.arguments import check, positive_int
from dropkit.ops import recompute, slices
from dropkit.ops.slices import Part
from dropkit.shard import generators, ranks
from dropkit.shard.parts import Batch, Extent, Replica, Slice, dynamic
from dropkit.torch_private import has_compiled


def stated(parts: tuple[Part, ...]) -> slices.Holding:
    """A block in which these parts hold in this thread, instead of those before."""
    # A checkpointed region that runs is run again from the parts that hold now, and enters this block again itself.
    if not is_dynamo_compiling() and recompute.may_be_checkpointed():
        recompute.keep_slices()
    return slices.Holding(parts)


@contextmanager
def holding(*parts: Slice) -> Generator[None]:
    """State which slices of its tensors' dimensions this process holds, for the dropout in a `with` block.

    Masks are then the slices of the mask of the whole tensor, to the bit. Inside of another block, the slices lie in
    the tensor that the outer block describes. The block counts for the thread that enters it.

    Args:
        parts: one slice for each dimension that is split.

    Raises:
        TypeError: a part is no `Slice`.
        IndexError, ValueError: in a dropout, if its input does not fit.

    Example:
        >>> from dropkit.functional import dropout
        >>> x = torch.ones(6, 2)
        >>> with holding(Slice(dim=0, start=2, total=6)):
        ...     part = dropout(x[2:4], key=7)
        >>> torch.equal(part, dropout(x, key=7)[2:4])
        True
    """
    for part in parts:
        if not isinstance(part, Slice):
            raise TypeError(f"parts must be shard.Slice, got {type(part).__name__}")
    as_they_come = (replace(part, start=dynamic(part.start), total=dynamic(part.total)) for part in parts)
    with stated((*slices.state.parts, *as_they_come)):
        yield


@contextmanager
def whole() -> Generator[None]:
    """Dropout in a `with` block is of tensors that are not split: blocks and split layers around it do not count.

    For what is the same on all ranks, such as positional embeddings, masks and weights. `different_masks` still counts.

    Example:
        >>> from dropkit.functional import dropout
        >>> x = torch.ones(6, 2)
        >>> with holding(Slice(dim=0, start=2, total=6)), whole():
        ...     masked = dropout(x, key=7)
        >>> torch.equal(masked, dropout(x, key=7))
        True
    """
    with stated(slices.unsplit_parts()):
        yield


@contextmanager
def data_parallel(
    group: Any = None, *, batch_size: int | None = None, dim: int = 0, flattened: bool = False
) -> Generator[None]:
    """Give each rank its part of the mask that one process would use for the batch of all ranks.

    One block for each batch, around the forward pass. Ranks exchange their batch sizes, which may differ or be 0, in
    one small `all_gather`, and whether their default generators are in one state. The batch of all ranks is that of
    rank 0, then that of rank 1, and so on; all other sizes must be the same on all ranks.

    Args:
        group: of `torch.distributed`; the default group if None.
        batch_size: number of this rank's samples, exchanged when the block begins. If None it is the size along `dim`
            of the first input that drops, and exchanged then, outside of the graphs of compiled code.
        dim: the dimension that holds the batch: 1 where sequences come first.
        flattened: inputs may have several indices along `dim` for each sample, one number for all samples, sample after
            sample: (samples * tokens, features). Must have `batch_size`.

    Raises:
        RuntimeError: `init_process_group` was not called; or the block is inside of another one; or, in a dropout that
            draws its key, the default generators of the ranks are in different states; or ranks differ in other sizes.
        ValueError: in a dropout, if the size of its input along `dim` is not the batch size.
    """
    if is_dynamo_compiling():
        raise RuntimeError("dropkit.shard: data_parallel must be entered outside of compiled functions")
    if any(isinstance(part, Batch) and part.is_across_ranks for part in slices.state.parts):
        raise RuntimeError(
            "dropkit.shard: data_parallel must not be inside of another data_parallel block; the batch would be split "
            "twice: pass the group of all ranks that hold parts of the batch"
        )
    if any(isinstance(part, Batch) for part in slices.state.parts):
        raise RuntimeError(
            "dropkit.shard: data_parallel must be around micro_batches, got one in an iteration of it; ranks may have "
            "different numbers of micro-batches"
        )
    dim = checked_dim(dim)
    if batch_size is not None:
        is_size = hasattr(batch_size, "__index__") and not isinstance(batch_size, bool) and index(batch_size) >= 0
        check("batch_size", is_size, "an integer of at least 0", batch_size)
    elif flattened:
        raise ValueError("batch_size must be given where flattened=True, got None")
    ranks.checked_group(group)
    extent = Extent(
        find=lambda extent, whole, dim: ranks.find(extent, group, whole.shape[dim], whole, dim),
        ranks=ranks.members(group),
    )
    if batch_size is not None:
        ranks.find(extent, group, index(batch_size))
    before = generators.fingerprints()
    with stated((*slices.state.parts, Batch(extent, dim, flattened, is_across_ranks=True))):
        yield
    ranks.note_shapes(extent, group)
    warn_if_ignored(extent, before, "data_parallel", stacklevel=4)


def warn_if_ignored(extent: Extent, before: dict[str, int], name: str, stacklevel: int) -> None:
    """Warn if only dropout that is not dropkit's ran under a statement, by the states of the generators before it."""
    # What compiled code drops is not noted.
    if not extent.has_counted and not has_compiled() and generators.fingerprints() != before:
        warnings.warn(
            f"dropkit.shard.{name} had no effect: random numbers were drawn, but no dropout of dropkit ran; torch's "
            "own dropout follows it under dropkit.install()",
            stacklevel=stacklevel,
        )


def micro_batches(total: int, size: int, *, dim: int = 0, flattened: bool = False) -> Iterator[slice]:
    """Iterate over parts of a batch; together they use the masks, and the random numbers, of one pass over the batch.

    Each iteration begins with torch's default generators, of the CPU and of the accelerator, as they were at the start,
    so that all of it draws the same keys; other random numbers repeat, too. After the last, they are as after one pass
    over the whole batch.

    Args:
        total: number of samples; inside of `data_parallel`, of this rank's. A batch of none is one part, also empty.
        size: number of samples of each part, of which the last may have fewer.
        dim, flattened: as for `data_parallel`.

    Yields:
        The samples of the part, to index the batch with.

    Example:
        >>> from dropkit.functional import dropout
        >>> x, generator = torch.ones(5, 3), torch.manual_seed(0)
        >>> parts = [dropout(x[rows]) for rows in micro_batches(len(x), 2)]
        >>> generator = torch.manual_seed(0)
        >>> torch.equal(torch.cat(parts), dropout(x))
        True
    """
    check("total", hasattr(total, "__index__") and not isinstance(total, bool) and index(total) >= 0,
          "an integer of at least 0", total)  # fmt: skip
    return _micro_batches(index(total), positive_int("size", size), checked_dim(dim), flattened)


def _micro_batches(total: int, size: int, dim: int, flattened: bool) -> Generator[slice]:
    states = generators.States()
    for start in range(0, max(total, 1), size):
        stop = min(start + size, total)
        if start > 0:
            states.restore()
        extent = Extent(dynamic(stop - start), dynamic(start), dynamic(total))
        part = Batch(extent, dim, flattened, is_across_ranks=False)
        stated((*slices.state.parts, part)).__enter__()
        try:
            yield slice(start, stop)
        finally:
            # Not `__exit__`: an iterator that was abandoned may end after blocks that began later.
            slices.state.parts = tuple(each for each in slices.state.parts if each is not part)


def checked_dim(dim: Any) -> int:
    """The dimension as an int; TypeError if it is none."""
    if not hasattr(dim, "__index__") or isinstance(dim, bool):
        raise TypeError(f"dim must be an integer, got {type(dim).__name__}")
    return index(dim)


class different_masks:  # noqa: N801 (used as a function is)
    """Use another mask on each rank, though all have one seed: from now on, or for a `with` block.

    Each rank uses mask elements of its own under the same keys, as if the tensors of all ranks were stacked along a
    first dimension. Explicit keys, too, give other masks on each rank. Counts for this thread, and for threads that
    begin after it.

    Args:
        group: of `torch.distributed`; the default group if None.

    Raises:
        RuntimeError: `init_process_group` was not called, or the call is inside of another block of `dropkit.shard`.
    """

    def __init__(self, group: Any = None) -> None:
        ranks.checked_group(group)
        self._before = slices.state.parts, slices.everywhere
        if slices.state.parts:
            raise RuntimeError(
                "dropkit.shard: different_masks must be the outermost block, and called once, got a call inside of "
                "another block or after another call"
            )
        self._parts = (Replica(distributed.get_rank(group), ranks.members(group)),)
        self.__enter__()

    def __enter__(self) -> None:
        slices.state.parts = slices.everywhere = self._parts

    def __exit__(self, *_: object) -> None:
        slices.state.parts, slices.everywhere = self._before
