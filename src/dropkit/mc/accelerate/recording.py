"""Recording: the calls of torch's functions in one pass up to its first dropout, and their results for other passes.

The model's own Python code runs again in every pass, hooks and branches included; only torch's functions do not. A
recording keeps those results that the model still references at its first dropout. For the others it returns tensors
without memory, which nothing can read.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from dropkit.arrays import is_array
from dropkit.containers import tensors
from dropkit.torch_private import make_unreadable, storage_identity, tree_flatten, tree_unflatten, write_count

_COMPARABLE = frozenset(
    {bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format, type(None)}
)
_MUTABLE = frozenset({list, dict, set})
# Functions that share a tensor's memory with code whose writes torch does not count.
ESCAPES: frozenset[Any] = frozenset(
    {
        Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, cast("Any", Tensor).data.__get__,
        cast("Any", Tensor).data.__set__,
    }
)  # fmt: skip


class Diverged(Exception):
    """A pass differs from the recorded one, and must run again without the recording."""


class WriteCounts:
    """Tensors, and how often each had been written into when this was made."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._counts = [(tensor, write_count(tensor)) for tensor in tensors]
        self.ids: set[int] = {id(tensor) for tensor, _ in self._counts}

    def are_current(self) -> bool:
        """Whether none of the tensors has been written into since."""
        return all(write_count(tensor) == count for tensor, count in self._counts)


@dataclass(frozen=True, slots=True)
class _WeakTensor:
    """A result of the recorded pass, which is freed when the model drops its last reference."""

    tensor: weakref.ref[Tensor]
    shape: torch.Size


@dataclass(slots=True)
class _Call:
    """A recorded call: the function, those of its arguments that can be compared, and its result."""

    func: Any
    comparable: tuple[Any, ...]
    leaves: list[Any]
    spec: Any


class Recording:
    """The calls of a pass up to its first dropout.

    Args:
        existing: the tensors that exist before the pass.
        copying: return copies of the results, since what follows the first dropout writes into them.

    Attributes:
        is_recording: this is the recorded pass, before its first dropout.
        is_running: the current pass is before its first dropout.
        fault: why the results cannot be used in other passes.
    """

    def __init__(self, existing: WriteCounts, copying: bool) -> None:
        self.is_recording: bool = True
        self.is_running: bool = True
        self.fault: str | None = None
        self._existing, self._copying = existing, copying
        self._calls: list[_Call] = []
        self._next = 0
        # The tensors that may be arguments of a call: those from before the pass, and results.
        self._ids = set(existing.ids)
        # By the id of a tensor that the model still referenced at its first dropout: the tensor to return in other
        # passes, and its write count.
        self._held: dict[int, tuple[Tensor, int]] = {}
        self._storages: list[int] = []
        self._copies: dict[int, Tensor] = {}

    def begin_pass(self) -> None:
        self._next, self.is_running = 0, True
        if self._copying:
            self._copies = {id(tensor): tensor.clone() for tensor, _ in self._held.values()}

    def call(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a function and record it, or return its recorded result.

        Raises:
            Diverged: this is not the call that was recorded.
        """
        if self.is_recording:
            output = func(*args, **kwargs)
            self._record(func, args, kwargs, output)
            return output
        if self._next == len(self._calls):
            raise Diverged("more calls than in the first pass")
        call = self._calls[self._next]
        self._next += 1
        if call.func != func or call.comparable != _comparable(args, kwargs):
            raise Diverged(f"another call of {getattr(func, '__name__', func)} than in the first pass")
        leaves = [self._copies.get(id(leaf), leaf) for leaf in call.leaves] if self._copies else call.leaves
        if call.spec is not None:
            return tree_unflatten(leaves, call.spec)
        # The model may change a list that it receives.
        return deepcopy(leaves[0]) if type(leaves[0]) in _MUTABLE else leaves[0]

    def stop(self) -> None:
        """End the recorded part at the first dropout, and keep the results that the model still references.

        Raises:
            Diverged: this pass made fewer calls than the recorded one.
        """
        self.is_running = False
        if not self.is_recording:
            if self._next != len(self._calls):
                raise Diverged("fewer calls than in the first pass")
            return
        self.is_recording = False
        if not self._existing.are_current():
            self.fault = "the model writes into its parameters, buffers or inputs before its first dropout"
        for call in self._calls:
            call.leaves = [self._reusable(leaf) for leaf in call.leaves]
        if self._copying and len(set(self._storages)) < len(self._storages):
            self.fault = "results from before the first dropout that share memory are written into after it"

    def is_intact(self) -> bool:
        """Whether the results are as they were at the first dropout."""
        return self._copying or all(write_count(tensor) == count for tensor, count in self._held.values())

    def _record(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        arguments = [*args, *kwargs.values()]
        if any(map(is_array, arguments)):
            self.fault = "numbers come from an array, which may differ in the next pass"
        for tensor in tensors(arguments):
            if id(tensor) not in self._ids and self.fault is None:
                self.fault = "a tensor was made where no function of torch was seen"
        leaves, spec = [deepcopy(output) if type(output) in _MUTABLE else output], None
        if not isinstance(output, Tensor) and any(True for _ in tensors(output)):
            leaves, spec = tree_flatten(output)
        leaves = [self._weak(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._calls.append(_Call(func, _comparable(args, kwargs), leaves, spec))

    def _weak(self, tensor: Tensor) -> _WeakTensor:
        identity = id(tensor)
        if identity in self._existing.ids:
            return _WeakTensor(weakref.ref(tensor), tensor.shape)
        self._ids.add(identity)
        # A later tensor may get the same id.
        return _WeakTensor(weakref.ref(tensor, lambda _: self._ids.discard(identity)), tensor.shape)

    def _reusable(self, leaf: Any) -> Any:
        """What other passes return for a result, or a part of one."""
        if not isinstance(leaf, _WeakTensor):
            return leaf
        tensor = leaf.tensor()
        if tensor is None:
            # Reading its memory is an error.
            tensor = torch.empty(leaf.shape, device="meta")
            make_unreadable(tensor)
            return tensor
        if id(tensor) in self._existing.ids:
            return tensor
        if tensor.is_inference():
            self.fault = "writes to tensors of inference mode are not counted"
        if id(tensor) not in self._held:
            stored = tensor.clone() if self._copying else tensor
            self._held[id(tensor)] = stored, write_count(stored)
            self._storages.append(storage_identity(tensor.untyped_storage()))
        return self._held[id(tensor)][0]


def _comparable(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments that can be compared, also those inside lists, tuples, slices and dicts."""
    comparable: list[Any] = []
    for value in args:
        if type(value) in _COMPARABLE:
            comparable.append(value)
        elif isinstance(value, slice):
            comparable += value.start, value.stop, value.step
        elif isinstance(value, (list, tuple)):
            comparable += len(cast("list[Any]", value)), *_comparable(cast("list[Any]", value), {})
        elif isinstance(value, dict):
            comparable += _comparable([], cast("dict[str, Any]", value))
    for name, value in kwargs.items():
        comparable += name, *_comparable([value], {})
    return tuple(comparable)
