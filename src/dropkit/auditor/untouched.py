"""An audit leaves no trace: whatever a run changes in a model, its tensors and the generators is put back.

Buffers are copied beforehand, since batch normalization writes them unannounced. Parameters, which may be large, are
copied when an operator is about to write them, and only then.
"""

from __future__ import annotations

import random
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dropkit import modes
from dropkit.auditor.operators import Operator, describe, storage, tensors

_CONTAINERS = frozenset({dict, OrderedDict, defaultdict, list, set})


class Untouched:
    """The state of a model when an audit begins, and what is done to put it back."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = list(modules)
        self._attributes = [(module, _shallow(vars(module))) for module in self.modules]
        self._grads: list[tuple[Tensor, Tensor | None]] = []
        self._watched: dict[int, Tensor] = {}
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._generators: list[tuple[torch.Generator, Tensor]] = []
        for module in self.modules:
            for value in vars(module).values():
                self._watch(value)
            for parameter in module._parameters.values():
                if parameter is not None:
                    self._watch(parameter)
                    self._grads.append((parameter, parameter.grad))
            for buffer in module._buffers.values():
                if buffer is not None:
                    self._watch(buffer)
                    self._copy(buffer)

    def _watch(self, value: Any) -> None:
        if isinstance(value, Tensor):
            key = storage(value)
            if key is not None:
                self._watched.setdefault(key, value)
        elif isinstance(value, torch.Generator):
            self._generators.append((value, value.get_state()))

    def _copy(self, tensor: Tensor) -> None:
        key = storage(tensor)
        if key is not None and key not in self._before:
            whole = _bytes(tensor)
            self._before[key] = whole, whole.clone()

    def about_to_write(self, operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Copy what an operator is going to change, if it is the model's."""
        for index, name in operator.written:
            for tensor in tensors(args[index] if index < len(args) else kwargs.get(name)):
                held = self._watched.get(storage(tensor) or 0)
                if held is not None:
                    self._copy(held)

    def careful(self) -> TorchDispatchMode:
        """A mode under which nothing is written that has not been copied; a recorder sees to it by itself."""
        return _Careful(self)

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of the model's own."""
        return (storage(tensor) or 0) in self._watched

    def without_grads(self) -> None:
        """Take the gradients off, so that none is added to."""
        for parameter, _ in self._grads:
            parameter.grad = None

    def put_back(self) -> None:
        """Everything as it was."""
        for module, attributes in self._attributes:
            _restore(vars(module), attributes)
        with torch.no_grad():
            for now, before in self._before.values():
                if not torch.equal(now, before):
                    now.copy_(before)
        for parameter, grad in self._grads:
            parameter.grad = grad
        for generator, state in self._generators:
            generator.set_state(state)


class _Careful(TorchDispatchMode):
    def __init__(self, state: Untouched) -> None:
        super().__init__()
        self._state = state

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._state.about_to_write(describe(func), args, kwargs or {})
        return func(*args, **(kwargs or {}))


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


def _bytes(tensor: Tensor) -> Tensor:
    """The whole memory that a tensor lies in, shared with others or not, to the bit."""
    with torch.no_grad():
        return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _shallow(attributes: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Each attribute and, of containers that can be changed in place, what they hold."""
    return {name: (value, _content(value)) for name, value in attributes.items()}


def _content(value: Any) -> Any:
    return value.copy() if type(value) in _CONTAINERS else None


def _restore(attributes: dict[str, Any], before: dict[str, tuple[Any, Any]]) -> None:
    for name in [name for name in attributes if name not in before]:
        del attributes[name]
    for name, (value, content) in before.items():
        if attributes.get(name, before) is not value:
            attributes[name] = value
        if type(value) is list:
            value[:] = content
        elif content is not None:
            value.clear()
            value.update(content)
