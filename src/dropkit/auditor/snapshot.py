"""Snapshot and restore a model, its tensors and the random generators.

Buffers are copied at once, because batch normalization writes them without announcing it in its schema. Other tensors,
which may be large, are copied when an operator is about to write them. Objects in attributes are recorded at once.
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
from dropkit.auditor.object_snapshot import ObjectSnapshot
from dropkit.auditor.operators import Operator, describe, is_overload, memory_id
from dropkit.containers import tensors
from dropkit.torch_private import ACCUMULATED, TENSOR_HOOKS, TorchDispatchMode, module_buffers


class _TensorState:
    """A tensor as an object: its view of the memory, `requires_grad`, gradient and hooks."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._is_strided = tensor.layout is torch.strided and not tensor.is_nested
        self._data = tensor.data if self._is_strided else tensor.detach().clone()
        self._requires_grad = tensor.requires_grad
        self._hooks = [(name, hooks, None if hooks is None else dict(hooks)) for name, hooks in _hooks(tensor)]
        self._grad = tensor.grad if tensor.is_leaf else None

    def restore(self) -> None:
        tensor, data = self.tensor, self._data
        if not self._is_strided or not _is_same_view(tensor, data):
            tensor.data = data
        if tensor.is_leaf:
            if tensor.requires_grad is not self._requires_grad:
                tensor.requires_grad_(self._requires_grad)
            if tensor.grad is not self._grad:
                tensor.grad = self._grad
        for (_, current), (name, hooks, before) in zip(_hooks(tensor), self._hooks, strict=True):
            # The autograd engine refers to these dicts, so their content is replaced.
            if current is not None:
                current.clear()
            if hooks is not None and before is not None:
                hooks.update(before)
            if current is not hooks:
                setattr(tensor, name, hooks)


class ModelSnapshot:
    """The state of a model's modules, from which `restore` restores it."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._objects = ObjectSnapshot(modules)
        self.modules: list[nn.Module] = self._objects.modules
        self._tensors = [_TensorState(tensor) for tensor in self._objects.tensors]
        self._own_memory = {key for state in self._tensors if (key := memory_id(state.tensor)) is not None}
        self._copies: dict[int, tuple[torch.UntypedStorage, Tensor]] = {}
        for module in self.modules:
            for buffer in module_buffers(module).values():
                if buffer is not None:
                    self._copy(buffer)

    def _copy(self, tensor: Tensor) -> None:
        key = memory_id(tensor)
        if key is not None and key not in self._copies:
            memory = tensor.untyped_storage()
            self._copies[key] = memory, _as_bytes(memory).clone()

    def copy_before_write(self, operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Copy the tensors of the model that an operator is about to change."""
        for position, name in operator.written:
            for tensor in tensors(args[position] if position < len(args) else kwargs.get(name)):
                if self.owns(tensor):
                    self._copy(tensor)

    def copying(self) -> TorchDispatchMode:
        """Return a mode that copies each tensor of the model before an operator writes it."""
        return _CopyBeforeWrite(self)

    def owns(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in memory of the model."""
        return memory_id(tensor) in self._own_memory

    def clear_gradients(self) -> None:
        """Clear `.grad` and post-accumulate hooks, so that backward neither accumulates nor steps an optimizer."""
        for state in self._tensors:
            if state.tensor.is_leaf:
                state.tensor.grad = None
            hooks = getattr(state.tensor, ACCUMULATED, None)
            if hooks:
                hooks.clear()

    def restore(self) -> None:
        """Give objects, memory and tensors the state that they had."""
        self._objects.restore()
        with torch.no_grad():
            for memory, before in self._copies.values():
                if memory.nbytes() != before.numel():
                    memory.resize_(before.numel())
                current = _as_bytes(memory)
                if not torch.equal(current, before):
                    current.copy_(before)
            for state in self._tensors:
                state.restore()


class _CopyBeforeWrite(TorchDispatchMode):
    supports_higher_order_operators = True

    def __init__(self, snapshot: ModelSnapshot) -> None:
        super().__init__()
        self._snapshot = snapshot

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_overload(func):
            self._snapshot.copy_before_write(describe(func), args, kwargs)
        return func(*args, **kwargs)


@contextmanager
def restored(modules: Iterable[nn.Module]) -> Generator[ModelSnapshot]:
    """Restore modules, random generators and the gradient mode at the end of a `with` block."""
    snapshot = ModelSnapshot(modules)
    with ExitStack() as stack:
        stack.enter_context(generators_restored())
        stack.callback(snapshot.restore)
        stack.enter_context(modes.preserve_training_flags(snapshot.modules))
        stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        yield snapshot


def seed_everything(seed: int) -> None:
    """Seed every generator that exists by now; devices that are not in use keep the seed that waits for them."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)


def host_generators() -> object:
    """The states of Python's generator and of NumPy's, if it is imported, to be compared."""
    numpy: Any = sys.modules.get("numpy")
    return random.getstate(), None if numpy is None else str(numpy.random.get_state())


@contextmanager
def generators_restored() -> Generator[None]:
    """Restore torch's generators on every device in use, Python's, and NumPy's if it is imported."""
    python_state = random.getstate()
    numpy: Any = sys.modules.get("numpy")
    numpy_state = None if numpy is None else numpy.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)


def _as_bytes(memory: torch.UntypedStorage) -> Tensor:
    """View memory, whatever tensors share it, as bytes."""
    return torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory)


def _is_same_view(tensor: Tensor, data: Tensor) -> bool:
    return (
        tensor.layout is data.layout
        and memory_id(tensor) == memory_id(data)
        and tensor.shape == data.shape
        and tensor.stride() == data.stride()
        and tensor.storage_offset() == data.storage_offset()
    )


def _hooks(tensor: Tensor) -> list[tuple[str, dict[Any, Any] | None]]:
    return [(name, getattr(tensor, name, None)) for name in TENSOR_HOOKS]
