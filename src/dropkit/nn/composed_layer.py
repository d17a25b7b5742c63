"""The record of a layer that is made of calls of other layers, for the rest of dropkit and for the tests.

CONTRIBUTING.md has the recipe for a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ComposedLayer:
    """A member of the dropout family whose masks are not those of a single call of the kernel.

    Attributes:
        module: the module. Its `forward` takes `key=` and `generator=` besides its inputs.
        inputs: from a dtype to the inputs of an example call of `forward`. Units that are dropped show in its output,
            which is a tensor, or a tuple whose first item is one.
        dropped: from the output of that call, and the module, to which units are dropped: a boolean tensor. The layer
            drops the fraction `p` of these units in expectation, each with probability `p`.
        function: the functional form; None if there is none.
        arguments: arguments of the module besides the rate, without the modules that it wraps.
        wraps: makes the modules that it wraps, as arguments by name; called for each new module.
        rate: name of the argument of the module that is the expected fraction of units dropped.
        variants: records of other arguments; the laws of the tests run on each.
        batch_dim: dimension of samples, in every input and in the output; None if samples share masks.
        is_plain_in_eval: whether eval mode computes what training does at rate 0.
        learns_rate: whether the rate is a parameter of the model, which no schedule moves.
        takes_compiler: whether a compiler takes `forward` as one graph.
        where: where the layer is put, and at which rates, for the table in the documentation.
    """

    module: type[torch.nn.Module]
    inputs: Callable[[torch.dtype], tuple[Tensor, ...]]
    dropped: Callable[[Tensor, Any], Tensor]
    function: Callable[..., Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    wraps: Callable[[], Mapping[str, Any]] = dict
    rate: str = "p"
    variants: tuple[ComposedLayer, ...] = ()
    batch_dim: int | None = 0
    is_plain_in_eval: bool = True
    learns_rate: bool = False
    takes_compiler: bool = True
    where: str = ""

    @property
    def name(self) -> str:
        return self.module.__name__

    def make(self, p: float, **more: Any) -> torch.nn.Module:
        """The module of this record at rate `p`."""
        return self.module(**{**self.arguments, **self.wraps(), self.rate: p, **more})
