"""Tapes: what a model computes before its first draw is the same in every pass, so it is computed once and replayed.

A tape notes each call of torch's in one pass, up to the first draw, and hands out the same results in the next. The
model's own Python runs again in full, hooks and branches included. Only those results are kept that the model itself
still holds when it draws; in the place of the others stand tensors without memory, that nothing may read.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from dropkit.torch_private import make_unreadable, storage_identity, tree_flatten, tree_unflatten, write_count

_PLAIN = frozenset(
    {bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format, type(None)}
)
_MUTABLE = frozenset({list, dict, set})
# What shares a tensor's memory with code whose writes no version counts.
ESCAPES: frozenset[Any] = frozenset(
    {
        Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, cast("Any", Tensor).data.__get__,
        cast("Any", Tensor).data.__set__,
    }
)  # fmt: skip


class Diverged(Exception):
    """A pass cannot be replayed: run it again without the tape."""


@dataclass(frozen=True, slots=True)
class _Weak:
    """A result of the pass that is noted, as long as the model holds it."""

    tensor: weakref.ref[Tensor]
    shape: torch.Size


@dataclass(slots=True)
class _Call:
    """One call: which function, with which plain arguments, and what came of it."""

    func: Any
    plain: tuple[Any, ...]
    leaves: list[Any]
    spec: Any


def held_by(model: nn.Module) -> list[Tensor]:
    """The tensors of a model: parameters, buffers, and those in plain attributes."""
    return [tensor for module in model.modules() for tensor in tensors(vars(module).values())]


class Known:
    """The tensors that exist before a pass, as they are now."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._versions = [(one, write_count(one)) for one in tensors]
        self.ids = {id(one) for one, _ in self._versions}

    def untouched(self) -> bool:
        """Whether none has been written since."""
        return all(write_count(one) == version for one, version in self._versions)


class Tape:
    """The calls of a pass up to its first draw.

    Args:
        known: what exists before the pass.
        copying: hand out copies, since what follows the first draw writes into the results.
    """

    def __init__(self, known: Known, copying: bool = False) -> None:
        self._known, self._copying = known, copying
        self._calls: list[_Call] = []
        self._ids = set(known.ids)
        self._next = 0
        # By the id of what the model held: what is handed out, and its version.
        self._held: dict[int, tuple[Tensor, int]] = {}
        self._storages: list[int] = []
        self._copies: dict[int, Tensor] = {}
        self.recording, self.running = True, True
        # Why this pass cannot be replayed.
        self.fault: str | None = None

    def begin(self) -> None:
        """Another pass begins."""
        self._next, self.running = 0, True
        if self._copying:
            self._copies = {id(tensor): tensor.clone() for tensor, _ in self._held.values()}

    def call(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a function and note it, or hand out what it returned.

        Raises:
            Diverged: this pass takes another way than the first.
        """
        if self.recording:
            output = func(*args, **kwargs)
            self._note(func, args, kwargs, output)
            return output
        if self._next == len(self._calls):
            raise Diverged("more calls than in the first pass")
        call = self._calls[self._next]
        self._next += 1
        if call.func != func or call.plain != _plain(args, kwargs):
            raise Diverged(f"another call of {getattr(func, '__name__', func)} than in the first pass")
        leaves = [self._copies.get(id(leaf), leaf) for leaf in call.leaves] if self._copies else call.leaves
        if call.spec is not None:
            return tree_unflatten(leaves, call.spec)
        # The model may change a list that it was given.
        return deepcopy(leaves[0]) if type(leaves[0]) in _MUTABLE else leaves[0]

    def cut(self) -> None:
        """The first draw: what lives now is kept, and from here on everything runs.

        Raises:
            Diverged: the first draw comes sooner than in the first pass.
        """
        self.running = False
        if not self.recording:
            if self._next != len(self._calls):
                raise Diverged("fewer calls than in the first pass")
            return
        self.recording = False
        if not self._known.untouched():
            self.fault = "the model writes into its parameters, buffers or inputs before it draws"
        for call in self._calls:
            call.leaves = [self._kept(leaf) for leaf in call.leaves]
        if self._copying and len(set(self._storages)) < len(self._storages):
            self.fault = "results from before the first draw that share memory are written after it"

    @property
    def intact(self) -> bool:
        """Whether what is kept is as it was at the first draw."""
        return self._copying or all(write_count(tensor) == version for tensor, version in self._held.values())

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        if any(
            hasattr(one, "__array_interface__") and not isinstance(one, Tensor) for one in (*args, *kwargs.values())
        ):
            self.fault = "numbers come from an array, which may be others in the next pass"
        for tensor in tensors([*args, *kwargs.values()]):
            if id(tensor) not in self._ids and self.fault is None:
                self.fault = "a tensor comes from where no call of torch was seen"
        leaves, spec = [deepcopy(output) if type(output) in _MUTABLE else output], None
        if not isinstance(output, Tensor) and any(True for _ in tensors([output])):
            leaves, spec = tree_flatten(output)
        leaves = [self._weakly(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._calls.append(_Call(func, _plain(args, kwargs), leaves, spec))

    def _weakly(self, tensor: Tensor) -> _Weak:
        identity = id(tensor)
        if identity in self._known.ids:
            return _Weak(weakref.ref(tensor), tensor.shape)
        self._ids.add(identity)
        # Another tensor may be made where this one was.
        return _Weak(weakref.ref(tensor, lambda _: self._ids.discard(identity)), tensor.shape)

    def _kept(self, leaf: Any) -> Any:
        if not isinstance(leaf, _Weak):
            return leaf
        tensor = leaf.tensor()
        if tensor is None:
            return _unreadable(leaf.shape)
        if id(tensor) in self._known.ids:
            return tensor
        if tensor.is_inference():
            self.fault = "writes to tensors of inference mode are not counted"
        if id(tensor) not in self._held:
            kept = tensor.clone() if self._copying else tensor
            self._held[id(tensor)] = kept, write_count(kept)
            self._storages.append(storage_identity(tensor.untyped_storage()))
        return self._held[id(tensor)][0]


def _unreadable(shape: torch.Size) -> Tensor:
    """In the place of a result that nothing holds any more: whoever asks for its memory is told that there is none."""
    tensor = torch.empty(shape, device="meta")
    make_unreadable(tensor)
    return tensor


def _plain(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments that can be compared, also inside of lists, tuples, slices and dicts."""
    plain: list[Any] = []
    for one in args:
        if type(one) in _PLAIN:
            plain.append(one)
        elif isinstance(one, slice):
            plain += one.start, one.stop, one.step
        elif isinstance(one, (list, tuple)):
            plain += len(cast("list[Any]", one)), *_plain(cast("list[Any]", one), {})
        elif isinstance(one, dict):
            plain += _plain([], cast("dict[str, Any]", one))
    for name, one in kwargs.items():
        plain += name, *_plain([one], {})
    return tuple(plain)


def tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(cast("list[Any]", value))
        elif isinstance(value, dict):
            yield from tensors(cast("dict[Any, Any]", value).values())
