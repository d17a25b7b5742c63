"""Slices: which part of a whole tensor this process holds, so that its mask is that part of the mask of the whole.

A mask index follows from the coordinates in the whole tensor, so a call needs no more than the sizes of the whole and
where its input begins. `dropkit.shard` states it. The parts that hold now are a tuple for each thread, from
the outermost to the innermost: an inner part lies in the tensor that the outer ones describe.
"""

from __future__ import annotations

import threading
from typing import Protocol

from torch import Tensor
from torch.compiler import is_dynamo_compiling


class Whole:
    """The tensor that this process's input is a part of, as far as the parts from the innermost outwards tell.

    Attributes:
        input: what this process holds.
        draws_from: where the key of the call comes from: "default", torch's generator; "generator", one that was given;
            or "" if it is not drawn.
        input_shape: sizes of the caller's tensor.
        shape: sizes of the whole tensor.
        starts: coordinates, in the whole tensor, of the first element of `input`.
        offset: added to every mask index.
        unit_ranks: the processes that hold other units of `input`.
    """

    def __init__(self, input: Tensor, draws_from: str, added_dims: int) -> None:
        self.input: Tensor = input
        self.draws_from: str = draws_from
        self.input_shape: tuple[int, ...] = tuple(input.shape[: input.dim() - added_dims])
        self.shape: list[int] = list(input.shape)
        self.starts: list[int] = [0] * len(self.shape)
        self.offset = 0
        self.unit_ranks: frozenset[int] = frozenset()

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


def plain(number: int) -> int:
    """A number that may be `dynamic`, for eager mode."""
    return number if is_dynamo_compiling() else int(number)


class Part(Protocol):
    """A statement about what this process holds."""

    def place(self, whole: Whole) -> None:
        """Extend the tensor so far to the one that it is a part of."""
        ...

    def of_unsplit(self) -> Part | None:
        """What this states about tensors that are not split, such as weights; None if nothing."""
        ...


class _State(threading.local):
    def __init__(self) -> None:
        # In __init__ rather than in the class: of objects of a thread, dynamo guards only their own attributes.
        self.parts: tuple[Part, ...] = everywhere


# Whether `dropkit.shard` was imported: calls look for parts only then.
is_used = False
# The parts that a new thread begins with.
everywhere: tuple[Part, ...] = ()
state: _State = _State()


def whole_of(input: Tensor, draws_from: str = "", added_dims: int = 0) -> Whole:
    """The whole that `input` is a part of, by this thread's parts; see `Layer.added_dims`."""
    whole = Whole(input, draws_from, added_dims)
    for part in reversed(state.parts):
        part.place(whole)
    return whole


def is_empty(input: Tensor) -> bool:
    """Whether the whole that an empty `input` is a part of is empty, so that no process draws a key."""
    return not is_used or len(state.parts) == 0 or 0 in whole_of(input).shape


class Holding:
    """Sets this thread's parts for a `with` block."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts = parts

    def __enter__(self) -> None:
        self._before = state.parts
        state.parts = self._parts

    def __exit__(self, *_: object) -> None:
        state.parts = self._before


def unsplit_parts() -> tuple[Part, ...]:
    """The parts of this thread that hold for what is not split."""
    return tuple(kept for part in state.parts if (kept := part.of_unsplit()) is not None)


def refuse_split(input: Tensor, dims: slice, wanted: str, reason: str = "") -> None:
    """Raise where this process holds a part of the whole along some dimensions, for a mask that needs all of them.

    Args:
        dims: the dimensions.
        wanted: what must hold, for the error.
        reason: appended to it.

    Raises:
        NotImplementedError: the whole is larger along one of them.
    """
    if not (is_used and state.parts):
        return
    whole = whole_of(input)
    if list(whole.shape[dims]) != list(input.shape[dims]):
        raise NotImplementedError(f"dropkit.shard: {wanted}, got a part of {tuple(whole.shape)}{reason}")


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
