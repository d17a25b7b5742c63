"""Tensors inside containers: find them, and rebuild a container with its leaves changed.

`tensors` and `map_leaves` enter lists, tuples and dicts, which is what torch's functions and operators take and return.
`tensors_in_objects` also enters other mappings, sets, dataclasses and objects, which a user may pass to a model or get
from it. A leaf is whatever is not entered. A tensor that occurs twice is yielded twice. A container inside itself is
not entered again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from torch import Tensor, nn

# How many containers deep `tensors_in_objects` looks: an object may hold a trainer or a data set, which are no outputs.
_DEEPEST = 8


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dicts (their values), in order.

    Example:
        >>> a, b = torch.zeros(1), torch.ones(1)
        >>> [int(tensor) for tensor in tensors([a, {"key": (b, 2.0)}])]
        [0, 1]
    """
    return iter((value,)) if isinstance(value, Tensor) else _tensors(value, ())


def _tensors(container: Any, above: tuple[int, ...]) -> Iterator[Tensor]:
    identity = id(container)
    if identity in above:
        return
    if isinstance(container, (list, tuple)):
        items = cast("list[Any]", container)
    elif isinstance(container, dict):
        items = cast("dict[Any, Any]", container).values()
    else:
        return
    for item in items:
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, (list, tuple, dict)):
            yield from _tensors(item, (*above, identity))


def tensors_in_objects(value: Any) -> list[Tensor]:
    """Collect the tensors in nested containers of any kind, dataclasses and attributes of objects, in order.

    Modules and classes are not entered, nor what lies more than 8 containers deep.

    Example:
        >>> from types import SimpleNamespace
        >>> [int(tensor) for tensor in tensors_in_objects(SimpleNamespace(logits=[torch.ones(1)], loss=None))]
        [1]
    """
    return list(_tensors_in_objects(value, ()))


def _tensors_in_objects(value: Any, above: tuple[int, ...]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif len(above) <= _DEEPEST and id(value) not in above:
        for item in _items(value):
            yield from _tensors_in_objects(item, (*above, id(value)))


def _items(value: Any) -> list[Any]:
    """What a container or object holds; nothing for a leaf."""
    if isinstance(value, (str, bytes, int, float, type(None), nn.Module, type)):
        return []
    if isinstance(value, Mapping):
        return list(cast("Mapping[Any, Any]", value).values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(cast("list[Any]", value))
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    return list(cast("dict[str, Any]", vars(value)).values()) if hasattr(value, "__dict__") else []


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """Rebuild nested lists, tuples and dicts with `function` applied to each leaf.

    Subclasses of list and tuple, such as named tuples, are leaves; a subclass of dict becomes a dict.

    Example:
        >>> map_leaves(lambda leaf: leaf * 2, [1, (2, {"three": 3})])
        [2, (4, {'three': 6})]
    """
    if type(value) in (list, tuple):
        return cast("Any", type(value))(map_leaves(function, item) for item in value)
    if isinstance(value, dict):
        return {key: map_leaves(function, item) for key, item in cast("dict[Any, Any]", value).items()}
    return function(value)
