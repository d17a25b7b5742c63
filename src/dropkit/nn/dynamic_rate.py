"""A module's rate that compiled code reads at each call, so that a new value needs no new graph."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from dropkit.nn.fx_module import FxModule
from dropkit.ops import autograd


class DynamicRate(FxModule):
    """Base class of modules that drop at rate `p`.

    A compiler takes a float attribute for a constant: each new value is a new graph. After `mark_rate_dynamic` compiled
    code reads a tensor instead, which follows every assignment to `p`. For everything else `p` remains a float.
    """

    # torch.jit.script compiles the properties of subclasses that it compiles.
    __jit_unused_properties__: ClassVar[list[str]] = ["rate"]

    p: float
    # Shape (1,), float64. A 0-d tensor of float64 on the CPU is a number to the compiler, which then compiles twice.
    # Replaced rather than written, so that a backward pass still has the rate of its forward pass. Of the class,
    # because `convert` and old pickles make objects without it.
    _rate_in_graphs: Tensor | None = None

    @property
    def rate(self) -> Any:
        """What `forward` passes on as `p`: `p` itself, or in compiled code the tensor that holds it."""
        if self._rate_in_graphs is None or not is_dynamo_compiling() or autograd.is_being_exported():
            return self.p
        return self._rate_in_graphs[0]

    def mark_rate_dynamic(self) -> None:
        """Let compiled code read the rate at each call. Code that was compiled before is compiled once more.

        Example:
            >>> layer = dropkit.nn.Dropout(0.5)
            >>> layer.mark_rate_dynamic()
            >>> layer.p = 0.25  # no new graph
            >>> layer
            Dropout(p=0.25, inplace=False)
        """
        self._rate_in_graphs = _held(self.p)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "p" and self._rate_in_graphs is not None:
            self._rate_in_graphs = _held(value)


def rate_of(name: str) -> Any:
    """The rate of the module of this name, as an attribute of the module that holds it."""
    return property(lambda self: getattr(self, name).p, lambda self, p: setattr(getattr(self, name), "p", p))


def rate_named(name: str) -> Any:
    """`p` by the name that another library gives it, whose programs read and set it."""
    return property(lambda self: self.p, lambda self, p: setattr(self, "p", p), doc=f"`p`, which others name {name}.")


def _held(p: float) -> Tensor:
    # On the CPU, where reading it waits for no GPU.
    return torch.tensor([float(p)], dtype=torch.float64, device="cpu")
