"""The attributes of modules, and what is in reach of them that a forward could change: noted, and put back.

Of the model's own modules everything is noted. Objects that they hold are followed some levels down, up to a number of
them: a module that holds a data set, or its trainer, is no reason to walk through all of it.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from dropkit.auditor.module_tree import LONG
from dropkit.torch_private import REGISTERED

_DEEPEST = 8
_MOST = 20_000
_ATOMS = frozenset({str, bytes, int, float, complex, bool, type(None), type, FunctionType, MethodType,
                    BuiltinFunctionType, ModuleType, torch.dtype, torch.device, torch.Size})  # fmt: skip

_Undo = Callable[[], Any]


class Attributes:
    """What modules hold. `modules` are those given and those found in their objects; `tensors` all tensors."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules: list[nn.Module] = []
        self.tensors: list[Tensor] = []
        self._undo: list[_Undo] = []
        # Held, so that no other object gets the same id.
        self._seen: dict[int, Any] = {}
        self._objects: deque[tuple[Any, int]] = deque()
        for module in modules:
            self._note_module(module)
        self._follow()

    def put_back(self) -> None:
        for undo in self._undo:
            undo()

    def _note_module(self, module: nn.Module) -> None:
        if id(module) in self._seen:
            return
        self._seen[id(module)] = module
        self.modules.append(module)
        attributes = vars(module)
        self._undo.append(_undo_dict(attributes))
        for name, value in list(attributes.items()):
            if name in REGISTERED:
                # However many there are. Those of TorchScript are views, and nothing to put back.
                self._seen[id(value)] = value
                held = cast("dict[str, Any]", value)
                if isinstance(value, dict):
                    self._undo.append(_undo_dict(held))
                for one in list(held.values()):
                    self._note(one, 1)
            else:
                self._note(value, 1)

    def _note(self, value: Any, depth: int) -> None:
        if type(value) in _ATOMS or id(value) in self._seen:
            return
        if isinstance(value, nn.Module):
            self._note_module(value)
        elif isinstance(value, Tensor):
            self._seen[id(value)] = value
            self.tensors.append(value)
            self._note(value.grad if value.is_leaf else None, depth)
            self._objects.append((vars(value), depth))
        else:
            self._objects.append((value, depth))

    def _follow(self) -> None:
        """The nearest first, so that it is what is far away that is left out."""
        followed = 0
        while self._objects and followed < _MOST:
            value, depth = self._objects.popleft()
            if id(value) in self._seen:
                continue
            followed += 1
            self._seen[id(value)] = value
            undo = _undo(value)
            if undo is not None:
                self._undo.append(undo)
            if depth < _DEEPEST:
                for one in _held_by(value):
                    self._note(one, depth + 1)


def _held_by(value: Any) -> Iterator[Any]:
    """What an object holds: its elements, its attributes, in a dict or in slots."""
    yield from _elements(value)
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        yield attributes
    for name in _slots(value):
        yield getattr(value, name)


def _elements(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(islice(cast("dict[Any, Any]", value).values(), LONG))
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(islice(cast("list[Any]", value), LONG))
    return []


def _slots(value: Any) -> list[str]:
    """The slots that are filled."""
    names: list[str] = []
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{kind.__name__.lstrip('_')}{name}" if private else name)
    return [name for name in names if name not in ("__dict__", "__weakref__") and hasattr(value, name)]


def _undo(value: Any) -> _Undo | None:
    """What makes an object as it is now; None for one that cannot change, or of which it is not known."""
    if isinstance(value, dict):
        return _undo_dict(cast("dict[Any, Any]", value))
    if isinstance(value, (list, bytearray)):
        before = value[:]  # pyright: ignore[reportUnknownVariableType]
        return partial(value.__setitem__, slice(None), before)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, (set, deque)):
        return _undo_items(cast("set[Any] | deque[Any]", value))
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    return _undo_numpy(value) or _undo_slots(value)


def _undo_dict(value: dict[Any, Any]) -> _Undo:
    before = list(value.items())

    def undo() -> None:
        now = value.items()
        same = len(now) == len(before) and all(
            name is other and content is held for (name, content), (other, held) in zip(now, before, strict=True)
        )
        if not same:
            value.clear()
            for name, content in before:
                # One by one: a Counter's update counts.
                value[name] = content

    return undo


def _undo_items(value: set[Any] | deque[Any]) -> _Undo:
    before = list(value)

    def undo() -> None:
        value.clear()
        (value.update if isinstance(value, set) else value.extend)(before)

    return undo


def _undo_numpy(value: Any) -> _Undo | None:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if isinstance(value, numpy.random.RandomState):
        return partial(value.set_state, value.get_state())
    if isinstance(value, numpy.ndarray) and value.flags.writeable and not isinstance(value, numpy.memmap):
        before = value.copy()

        def undo() -> None:
            if not numpy.array_equal(value, before):
                numpy.copyto(value, before)

        return undo
    return None


def _undo_slots(value: Any) -> _Undo | None:
    before = [(name, getattr(value, name)) for name in _slots(value)]

    def undo() -> None:
        for name, content in before:
            if getattr(value, name, None) is not content:
                object.__setattr__(value, name, content)

    return undo if before else None
