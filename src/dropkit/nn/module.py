"""The base class of dropkit's dropout modules, and its metaclass, which makes each equal to torch's class."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Generator, Tensor

from dropkit.nn import torchscript
from dropkit.nn.checks import check_probability
from dropkit.nn.dynamic_rate import DynamicRate


class EqualToTorch(type):
    """Makes dropkit's class of a module equal to torch's class of the same name, with the same hash.

    torch's quantisation and other tools look modules up by their exact class: in lists, in tables, with ==. They find
    dropkit's where torch's is listed. A subclass is equal to itself alone, as is a class that torch does not have.
    """

    def __eq__(cls, other: object) -> bool:
        return cls is other or other is _torch_class(cls)

    def __hash__(cls) -> int:
        return type.__hash__(_torch_class(cls) or cls)


def _torch_class(cls: type) -> type[torch.nn.Module] | None:
    """torch's class of the same name, if `cls` inherits from it directly."""
    base = cls.__bases__[-1]
    return base if getattr(torch.nn, cls.__name__, None) is base else None


class DropoutModule(DynamicRate, metaclass=EqualToTorch):
    """Adds a checked `p`, and `generator=` and `key=` in `forward`, to one of torch's dropout modules."""

    # torch's own classes set `p` and this.
    inplace: bool
    _function: ClassVar[Callable[..., Tensor]]

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__(p, inplace)  # pyright: ignore[reportCallIssue] (the next class is one of torch's)
        check_probability(p)  # torch's class accepts NaN

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Drop in training mode, return `input` itself otherwise; see the functional form of the same name."""
        # What `rate` does, without its 50 ns where no graph needs it.
        p = self.p if self._rate_in_graphs is None else self.rate
        return type(self)._function(input, p, self.training, self.inplace, generator=generator, key=key)

    def __prepare_scriptable__(self) -> torch.nn.Module:
        """What `torch.jit.script` compiles in place of this module."""
        *classes, _ = type(self).__mro__
        defines_forward = next(cls for cls in classes if "forward" in vars(cls))
        if not defines_forward.__module__.startswith("dropkit.nn."):
            return self
        if getattr(self, "noise_shape", None) is not None:
            raise NotImplementedError(torchscript.no_counterpart(f"{type(self).__name__} with noise_shape"))
        return torchscript.substitute(self, next(filter(None, map(_torch_class, classes)), None))
