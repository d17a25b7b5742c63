"""Snapshot and restore the Python objects that a model's modules refer to.

Every attribute of the modules is recorded. Other objects are followed to a limited depth and number: a module may refer
to a data set or a trainer, which need not be walked completely.
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

from dropkit.auditor.module_tree import MAX_ITEMS
from dropkit.torch_private import REGISTERED

_MAX_DEPTH = 8
_MAX_OBJECTS = 20_000
_ATOMS = frozenset({str, bytes, int, float, complex, bool, type(None), type, FunctionType, MethodType,
                    BuiltinFunctionType, ModuleType, torch.dtype, torch.device, torch.Size})  # fmt: skip

# Restores an object.
_Restore = Callable[[], Any]


class ObjectSnapshot:
    """The state of all objects that some modules refer to.

    Attributes:
        modules: these modules, and further ones that the objects refer to.
        tensors: the tensors among the objects. Their values are not part of the snapshot.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules: list[nn.Module] = []
        self.tensors: list[Tensor] = []
        self._restores: list[_Restore] = []
        # References keep an id from being reused.
        self._seen: dict[int, Any] = {}
        self._queue: deque[tuple[Any, int]] = deque()
        for module in modules:
            self._add_module(module)
        self._follow_objects()

    def restore(self) -> None:
        """Give every object the content that it had."""
        for restore in self._restores:
            restore()

    def _add_module(self, module: nn.Module) -> None:
        if id(module) in self._seen:
            return
        self._seen[id(module)] = module
        self.modules.append(module)
        attributes = vars(module)
        self._restores.append(_restore_dict(attributes))
        for name, value in list(attributes.items()):
            if name not in REGISTERED:
                self._add(value, 1)
                continue
            self._seen[id(value)] = value
            if isinstance(value, dict):  # TorchScript has views here, with nothing to restore
                self._restores.append(_restore_dict(cast("dict[str, Any]", value)))
            for registered in list(cast("dict[str, Any]", value).values()):
                self._add(registered, 1)

    def _add(self, value: Any, depth: int) -> None:
        if type(value) in _ATOMS or id(value) in self._seen:
            return
        if isinstance(value, nn.Module):
            self._add_module(value)
        elif isinstance(value, Tensor):
            self._seen[id(value)] = value
            self.tensors.append(value)
            self._add(value.grad if value.is_leaf else None, depth)
            self._queue.append((vars(value), depth))
        else:
            self._queue.append((value, depth))

    def _follow_objects(self) -> None:
        """Walk breadth first, so that the limit omits the objects that are farthest from the model."""
        followed = 0
        while self._queue and followed < _MAX_OBJECTS:
            value, depth = self._queue.popleft()
            if id(value) in self._seen:
                continue
            followed += 1
            self._seen[id(value)] = value
            restore = _restore_of(value)
            if restore is not None:
                self._restores.append(restore)
            if depth < _MAX_DEPTH:
                for content in _contents(value):
                    self._add(content, depth + 1)


def _contents(value: Any) -> Iterator[Any]:
    """Yield the elements of a container, the `__dict__` of an object and the values of its slots."""
    if isinstance(value, dict):
        yield from list(islice(cast("dict[Any, Any]", value).values(), MAX_ITEMS))
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from list(islice(cast("list[Any]", value), MAX_ITEMS))
    attributes = getattr(cast("Any", value), "__dict__", None)
    if isinstance(attributes, dict):
        yield attributes
    yield from _slots(value).values()


def _slots(value: Any) -> dict[str, Any]:
    """Return the slots that are filled."""
    names: list[str] = []
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            is_private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{cls.__name__.lstrip('_')}{name}" if is_private else name)
    names = [name for name in names if name not in ("__dict__", "__weakref__") and hasattr(value, name)]
    return {name: getattr(value, name) for name in names}


def _restore_of(value: Any) -> _Restore | None:
    """Return a function that restores an object's current state; None if it is immutable or of an unknown kind."""
    if isinstance(value, dict):
        return _restore_dict(cast("dict[Any, Any]", value))
    if isinstance(value, (list, bytearray)):
        before = value[:]  # pyright: ignore[reportUnknownVariableType]
        return partial(value.__setitem__, slice(None), before)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, set):
        return partial(_refill, value, cast("set[Any]", value).update, list(cast("set[Any]", value)))
    if isinstance(value, deque):
        return partial(_refill, value, cast("deque[Any]", value).extend, list(cast("deque[Any]", value)))
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    return _restore_numpy(value) or _restore_slots(value)


def _restore_dict(value: dict[Any, Any]) -> _Restore:
    before = list(value.items())

    def restore() -> None:
        now = value.items()
        is_same = len(now) == len(before) and all(
            name is old_name and content is old_content
            for (name, content), (old_name, old_content) in zip(now, before, strict=True)
        )
        if not is_same:
            value.clear()
            for name, content in before:
                # One by one: Counter.update adds counts.
                value[name] = content

    return restore


def _refill(container: Any, fill: Callable[[list[Any]], Any], before: list[Any]) -> None:
    container.clear()
    fill(before)


def _restore_numpy(value: Any) -> _Restore | None:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if isinstance(value, numpy.random.RandomState):
        return partial(value.set_state, value.get_state())
    if isinstance(value, numpy.ndarray) and value.flags.writeable and not isinstance(value, numpy.memmap):
        before = value.copy()

        def restore() -> None:
            if not numpy.array_equal(value, before):
                numpy.copyto(value, before)

        return restore
    return None


def _restore_slots(value: Any) -> _Restore | None:
    before = _slots(value)

    def restore() -> None:
        for name, content in before.items():
            if getattr(value, name, None) is not content:
                object.__setattr__(value, name, content)

    return restore if before else None
