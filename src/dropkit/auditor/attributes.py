"""The attributes of modules, and everything in reach of them that a forward could change: noted, and put back.

Containers and objects are followed a few levels down, up to a number of them: a module that holds a data set, or its
trainer, is no reason to walk through all of it.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

_DEEPEST = 5
_MOST = 20_000
# Longer lists are noted as they are, and what they hold is not followed.
_LONG = 1_000
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, FunctionType, MethodType, BuiltinFunctionType,
          ModuleType, torch.dtype, torch.device, torch.Size)  # fmt: skip


class Attributes:
    """What modules hold. `modules` are those given and those found in their objects; `tensors` all tensors."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules: list[nn.Module] = []
        self.tensors: list[Tensor] = []
        self._undo: list[Callable[[], Any]] = []
        # Held, so that no other object gets the same id.
        self._seen: dict[int, Any] = {}
        for module in modules:
            self._visit(module, 0)

    def put_back(self) -> None:
        for undo in self._undo:
            undo()

    def _visit(self, value: Any, depth: int) -> None:
        if isinstance(value, _ATOMS) or id(value) in self._seen or len(self._seen) > _MOST:
            return
        self._seen[id(value)] = value
        if isinstance(value, nn.Module):
            self.modules.append(value)
            depth = 0
        if isinstance(value, Tensor):
            self.tensors.append(value)
        undo = _undo(value)
        if undo is not None:
            self._undo.append(undo)
        if depth < _DEEPEST:
            for one in _inside(value):
                self._visit(one, depth + 1)


def _inside(value: Any) -> Iterator[Any]:
    """What an object holds."""
    if isinstance(value, dict):
        yield from list(cast("dict[Any, Any]", value).values())[:_LONG]
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from list(cast("list[Any]", value))[:_LONG]
    elif isinstance(value, Tensor):
        yield value.grad if value.is_leaf else None
    yield from _own(value)


def _own(value: Any) -> Iterator[Any]:
    """What an object of a class holds: its attributes, in a dict or in slots."""
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        yield attributes
    for kind in type(value).__mro__:
        for name in _slots(kind):
            if hasattr(value, name):
                yield getattr(value, name)


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__") and not name.startswith("__"))


def _undo(value: Any) -> Callable[[], Any] | None:
    """What makes an object as it is now."""
    if isinstance(value, dict):
        return _undo_dict(cast("dict[Any, Any]", value))
    if isinstance(value, list):
        return _undo_list(cast("list[Any]", value))
    if isinstance(value, (set, deque)):
        return _undo_set(value)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if numpy is not None and isinstance(value, numpy.ndarray) and value.flags.writeable:
        return partial(numpy.copyto, value, value.copy())
    return _undo_slots(value)


def _undo_dict(value: dict[Any, Any]) -> Callable[[], None]:
    before = dict(value)

    def undo() -> None:
        same = len(value) == len(before) and all(
            name in value and value[name] is content for name, content in before.items()
        )
        if not same:
            value.clear()
            value.update(before)

    return undo


def _undo_list(value: list[Any]) -> Callable[[], None]:
    before = list(value)

    def undo() -> None:
        value[:] = before

    return undo


def _undo_set(value: set[Any] | deque[Any]) -> Callable[[], None]:
    before = list(value)

    def undo() -> None:
        value.clear()
        (value.update if isinstance(value, set) else value.extend)(before)

    return undo


def _undo_slots(value: Any) -> Callable[[], None] | None:
    names = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
    if not names or isinstance(value, Tensor):
        return None
    before = [(name, getattr(value, name)) for name in names]

    def undo() -> None:
        for name, content in before:
            if getattr(value, name, None) is not content:
                object.__setattr__(value, name, content)

    return undo
