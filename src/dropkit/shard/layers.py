"""Statements about one layer: `split`, `batch_dim`, `unsplit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import index
from typing import Any, TypeVar

from torch import distributed, nn
from torch.compiler import is_dynamo_compiling

from dropkit.arguments import check
from dropkit.ops import slices
from dropkit.ops.slices import Part, Whole
from dropkit.shard import generators, ranks
from dropkit.shard.blocks import checked_dim, stated, warn_if_ignored
from dropkit.shard.parts import Batch, Extent, Slice, Units
from dropkit.torch_private import has_compiled

Layer = TypeVar("Layer", bound=nn.Module)


def split(layer: Layer, dim: int | Slice = -1, group: Any = None, *, total: int | None = None) -> Layer:
    """State that this process's inputs of one layer are parts of a larger tensor: the layer's units are split.

    For dropout between the two halves of a tensor-parallel block on local tensors. The layer's `forward` is replaced by
    one that states it; `unsplit` undoes this. A copy is split as well, and so is a pickled layer where it is loaded, by
    the ranks that are there then.

    Args:
        layer: any module; what it says counts for all dropout in it.
        dim: the dimension that is split among the ranks of the group, in their order; or a `Slice`, without a group.
        group: of `torch.distributed`; the default group if None.
        total: the size of the whole dimension, split as `torch.chunk` does. If None, ranks exchange the sizes of their
            parts at the first call, outside of the graphs of compiled code.

    Returns:
        The layer.

    Raises:
        RuntimeError: the layer is split already, or `init_process_group` was not called.
        ValueError: in a dropout, if the size of its input does not fit.
    """
    if isinstance(dim, Slice):
        check("group and total", group is None and total is None, "None where dim is a Slice", f"{group} and {total}")
        return _attach(layer, _Statement(dim))
    dim = checked_dim(dim)
    if total is not None:
        is_size = hasattr(total, "__index__") and not isinstance(total, bool) and index(total) >= 0
        check("total", is_size, "an integer of at least 0", total)
    statement = _Split(dim, ranks.checked_group(group), None if total is None else index(total))
    return _attach(layer, statement)


def batch_dim(layer: Layer, dim: int | None, *, flattened: bool = False) -> Layer:
    """State where the batch lies in the inputs of one layer, if elsewhere than `data_parallel` or `micro_batches` say.

    Args:
        layer: any module; what it says counts for all dropout in it.
        dim: the dimension that holds the batch; None if the layer's inputs are not split, as under `whole`.
        flattened: as for `data_parallel`.

    Returns:
        The layer, whose `forward` was replaced; `unsplit` undoes this.
    """
    return _attach(layer, _BatchDim(None if dim is None else checked_dim(dim), flattened))


def unsplit(layer: Layer) -> Layer:
    """Undo `split` or `batch_dim` of a layer; does nothing if there is nothing to undo.

    Returns:
        The layer.
    """
    forward = vars(_checked(layer)).get("forward")
    if isinstance(forward, _Forward):
        if forward.replaced is None:
            del layer.forward
        else:
            layer.forward = forward.replaced
    return layer


def _checked(layer: Layer) -> Layer:
    if not isinstance(layer, nn.Module):
        raise TypeError(f"layer must be a torch.nn.Module, got {type(layer).__name__}")
    return layer


def _attach(layer: Layer, statement: _Statement) -> Layer:
    if isinstance(vars(_checked(layer)).get("forward"), _Forward):
        raise RuntimeError("dropkit.shard: layer must not be split already, got one that is: call shard.unsplit first")
    layer.forward = _Forward(layer, statement)
    return layer


class _Forward:
    """A layer's forward, under a statement."""

    def __init__(self, layer: nn.Module, statement: _Statement) -> None:
        # What another tool has put in the place of the class's method.
        self.replaced: Callable[..., Any] | None = vars(layer).get("forward")
        self.layer, self.statement = layer, statement

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.statement.is_checked or is_dynamo_compiling() or has_compiled() or not self.layer.training:
            return self._run(*args, **kwargs)
        before = generators.fingerprints()
        output = self._run(*args, **kwargs)
        self.statement.check(before)
        return output

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        with stated(self.statement.parts()):
            if self.replaced is not None:
                return self.replaced(*args, **kwargs)
            return type(self.layer).forward(self.layer, *args, **kwargs)


class _Statement:
    """States a slice.

    Attributes:
        is_checked: whether `check`, after the first call in training mode, needs not be called.
    """

    is_checked = True

    def __init__(self, part: Part) -> None:
        self.part = part

    def parts(self) -> tuple[Part, ...]:
        """All parts that hold in the layer."""
        return (*slices.state.parts, self.part)

    def check(self, before: dict[str, int]) -> None:
        """Warn if no dropout has followed, from the states of the generators before the call."""


class _Split(_Statement):
    """States a part of the units, which is found from the ranks of a group."""

    part: Units
    is_checked = False

    def __init__(self, dim: int, group: Any, total: int | None) -> None:
        self.dim, self.group, self.total = dim, group, total
        self.lost_group = False
        super().__init__(self._units())

    def _units(self) -> Units:
        if self.total is not None and not self.lost_group and distributed.is_initialized():
            return Units(_chunk(self.total, self.group), self.dim)
        return Units(Extent(find=self._find), self.dim)

    def check(self, before: dict[str, int]) -> None:
        self.is_checked = True
        warn_if_ignored(self.part.extent, before, "split", stacklevel=5)

    def _find(self, extent: Extent, whole: Whole, dim: int) -> None:
        if self.lost_group:
            raise RuntimeError(
                "dropkit.shard: a layer that was split among the ranks of a group must be split again after it is "
                "loaded, since a group cannot be saved: shard.split(shard.unsplit(layer), group=...)"
            )
        ranks.checked_group(self.group)
        if self.total is None:
            ranks.find(extent, self.group, whole.shape[dim], whole, dim)
        else:
            found = _chunk(self.total, self.group)
            extent.size, extent.start, extent.total, extent.ranks = found.size, found.start, found.total, found.ranks

    def __deepcopy__(self, memo: dict[int, Any]) -> _Split:
        return _Split(self.dim, self.group, self.total)

    def __getstate__(self) -> dict[str, Any]:
        """Without the group and what was found, which belong to this process."""
        return {"dim": self.dim, "total": self.total, "lost_group": self.lost_group or self.group is not None}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.group = None
        vars(self).update(saved)
        self.part = self._units()


def _chunk(total: int, group: Any) -> Extent:
    """This rank's part, split as `torch.chunk` does."""
    chunk = -(-total // distributed.get_world_size(group))
    start = min(chunk * distributed.get_rank(group), total)
    return Extent(min(chunk, total - start), start, total, ranks=ranks.members(group))


class _BatchDim(_Statement):
    """States where the batch lies."""

    def __init__(self, dim: int | None, flattened: bool) -> None:
        self.dim, self.flattened = dim, flattened

    def parts(self) -> tuple[Part, ...]:
        if self.dim is None:
            return slices.unsplit_parts()
        return tuple(
            replace(part, dim=self.dim, flattened=self.flattened) if isinstance(part, Batch) else part
            for part in slices.state.parts
        )
