"""Classes made of a module's own class and one of dropkit's, for modules that `convert` and `retrofit` change.

The module remains an instance of its class, whose name is kept: libraries look classes up by name, to decide what is
wrapped or split over devices.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ClassVar

from torch import nn


class ExtendedClass(nn.Module):
    """Base of what is added to a class, and comes before it in the order of inheritance.

    Attributes:
        made_by: the arguments with which `extended` makes the class again where a module is copied or unpickled.
    """

    made_by: ClassVar[tuple[Any, ...]]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class has no name under which pickle would find it.
        return _new, self.made_by, self.__getstate__()


@cache
def extended(original: type[nn.Module], addition: type[ExtendedClass], method: str, by: str) -> Any:
    """The class of both.

    Args:
        original: the class of a module.
        addition: what is added to it.
        method: name of a method of `original` that is replaced.
        by: name of the method of `addition` that replaces it. It is called with the replaced function before the
            arguments.
    """
    body: dict[str, Any] = {
        # An extended class may be extended again.
        "made_by": (vars(original).get("made_by", original), addition, method, by),
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        method: _replacement(getattr(original, method), getattr(addition, by)),
    }
    metaclass: Any = type(original)
    return metaclass(original.__name__, (addition, original), body)


def _replacement(method: Callable[..., Any], by: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the signature of the method, which transformers and fx read."""

    @wraps(method)
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return by(self, method, *args, **kwargs)

    return call


def _new(*made_by: Any) -> nn.Module:
    cls = _class(*made_by)
    return cls.__new__(cls)


def _class(original: Any, *others: Any) -> Any:
    return extended(_class(*original) if isinstance(original, tuple) else original, *others)
