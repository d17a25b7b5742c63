"""An audit leaves no trace: whatever a run changes in a model, its tensors and the generators is put back.

Buffers are copied beforehand, since batch normalization writes them unannounced. Other tensors, which may be large, are
copied when an operator is about to write them, and only then. Attributes, and what they hold, are noted beforehand.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dropkit import modes
from dropkit.auditor.object_snapshot import Attributes
from dropkit.auditor.operators import Operator, describe, is_overload, storage, tensors
from dropkit.torch_private import ACCUMULATED, TENSOR_HOOKS, TorchDispatchMode, module_buffers


class _Kept:
    """A tensor as an object: which memory it lies in and how, its gradient, its hooks and its own attributes."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        strided = tensor.layout is torch.strided and not tensor.is_nested
        self._data = tensor.data if strided else tensor.detach().clone()
        self._strided = strided
        self._requires_grad = tensor.requires_grad
        self._hooks = [(name, hooks, None if hooks is None else dict(hooks)) for name, hooks in _hooks(tensor)]
        self.grad = tensor.grad if tensor.is_leaf else None

    def put_back(self) -> None:
        tensor, data = self.tensor, self._data
        if not self._strided or not _same_view(tensor, data):
            tensor.data = data
        if tensor.is_leaf:
            if tensor.requires_grad is not self._requires_grad:
                tensor.requires_grad_(self._requires_grad)
            if tensor.grad is not self.grad:
                tensor.grad = self.grad
        for (_, now), (name, hooks, before) in zip(_hooks(tensor), self._hooks, strict=True):
            # The engine holds these dicts: they are emptied and filled.
            if now is not None:
                now.clear()
            if hooks is not None and before is not None:
                hooks.update(before)
            if now is not hooks:
                setattr(tensor, name, hooks)


class Untouched:
    """The state of a model when an audit begins, and what is done to put it back."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._attributes = Attributes(modules)
        self.modules = self._attributes.modules
        self._kept = [_Kept(tensor) for tensor in self._attributes.tensors]
        self._watched = {key for kept in self._kept if (key := storage(kept.tensor)) is not None}
        self._before: dict[int, tuple[torch.UntypedStorage, Tensor]] = {}
        for module in self.modules:
            for buffer in module_buffers(module).values():
                if buffer is not None:
                    self._copy(buffer)

    def _copy(self, tensor: Tensor) -> None:
        key = storage(tensor)
        if key is not None and key not in self._before:
            memory = tensor.untyped_storage()
            self._before[key] = memory, _bytes(memory).clone()

    def about_to_write(self, operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Copy what an operator is going to change, if it is the model's."""
        for index, name in operator.written:
            for tensor in tensors(args[index] if index < len(args) else kwargs.get(name)):
                if storage(tensor) in self._watched:
                    self._copy(tensor)

    def careful(self) -> TorchDispatchMode:
        """A mode under which nothing is written that has not been copied; a recorder sees to it by itself."""
        return _Careful(self)

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of the model's own."""
        return storage(tensor) in self._watched

    def without_grads(self) -> None:
        """Take the gradients off, so that none is added to, and what hangs on them, so that nothing is stepped."""
        for kept in self._kept:
            if kept.tensor.is_leaf:
                kept.tensor.grad = None
            accumulated = getattr(kept.tensor, ACCUMULATED, None)
            if accumulated:
                accumulated.clear()

    def put_back(self) -> None:
        """Everything as it was."""
        self._attributes.put_back()
        with torch.no_grad():
            for memory, before in self._before.values():
                if memory.nbytes() != before.numel():
                    memory.resize_(before.numel())
                now = _bytes(memory)
                if not torch.equal(now, before):
                    now.copy_(before)
            for kept in self._kept:
                kept.put_back()


class _Careful(TorchDispatchMode):
    supports_higher_order_operators = True

    def __init__(self, state: Untouched) -> None:
        super().__init__()
        self._state = state

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_overload(func):
            self._state.about_to_write(describe(func), args, kwargs)
        return func(*args, **kwargs)


@contextmanager
def untouched(modules: Iterable[nn.Module]) -> Generator[Untouched]:
    """Undo at the end of a `with` block what happened to these modules and to the generators of the process."""
    state = Untouched(modules)
    with ExitStack() as stack:
        stack.enter_context(_generators())
        stack.callback(state.put_back)
        stack.enter_context(modes.kept(state.modules))
        stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        yield state


def seed(number: int) -> None:
    """Seed every generator that exists by now; one of a device that is not in use yet keeps the seed it will get."""
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)
    random.seed(number)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number % 2**32)


@contextmanager
def _generators() -> Generator[None]:
    """torch's on every device in use, Python's, and NumPy's where it is imported."""
    python = random.getstate()
    numpy: Any = sys.modules.get("numpy")
    numpys = None if numpy is None else numpy.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(numpys)


def _bytes(memory: torch.UntypedStorage) -> Tensor:
    """The whole memory, shared by several tensors or not, to the bit."""
    return torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory)


def _same_view(tensor: Tensor, data: Tensor) -> bool:
    return (
        tensor.layout is data.layout
        and storage(tensor) == storage(data)
        and tensor.shape == data.shape
        and tensor.stride() == data.stride()
        and tensor.storage_offset() == data.storage_offset()
    )


def _hooks(tensor: Tensor) -> list[tuple[str, dict[Any, Any] | None]]:
    return [(name, getattr(tensor, name, None)) for name in TENSOR_HOOKS]
