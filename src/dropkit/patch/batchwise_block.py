"""A module's feed-forward block, run without the hidden units that dropout zeroes for the whole batch.

Source: Graham, Reizenstein, Robinson, "Efficient batchwise dropout training using submatrices", 2015, arXiv:1502.02478.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.nn.submatrix import Chain, run
from dropkit.patch.extended_class import ExtendedClass, extended


@dataclass(frozen=True, slots=True)
class Block:
    """What one method of a module computes: two products with an activation between, and what follows.

    Attributes:
        method: name of the method, which takes one tensor.
        linear1, linear2, gate: names of modules in the module; `gate` is None if there is none.
        activation: name of an attribute, with dots, or the function itself if the method names it.
        after: names of the dropout layers that the output passes.
        is_residual: whether the input is added then.
        norm: name of the normalisation that comes last; None if there is none.
    """

    method: str
    linear1: str
    activation: str | Callable[[Tensor], Tensor]
    linear2: str
    gate: str | None = None
    after: tuple[str, ...] = ()
    is_residual: bool = False
    norm: str | None = None


class BatchwiseBlock(ExtendedClass, DynamicRate):
    """What `retrofit` adds to the class of a module: it drops the hidden units of its block at rate `p`.

    The modules inside keep their names. Dropout layers between the two products are passed over.
    """

    block: Block

    def run_block(self, method: Callable[..., Any], *args: Tensor, **kwargs: Tensor) -> Tensor:
        """Take the place of `method`, which had one argument of any name."""
        (input,) = (*args, *kwargs.values())
        block, modules = self.block, self.get_submodule
        activation: Any = block.activation
        chain = Chain(
            (modules(block.linear1), modules(block.linear2)),
            attrgetter(activation)(self) if isinstance(activation, str) else activation,
            self.rate,
            None if block.gate is None else modules(block.gate),
        )
        output = run(chain, input, self.training, (None,))
        for name in block.after:
            output = modules(name)(output)
        if block.is_residual:
            output = output + input
        return output if block.norm is None else modules(block.norm)(output)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (f"p={self.p}", super().extra_repr())))


def make_batchwise(module: nn.Module, block: Block, p: float) -> None:
    """Let a module drop the hidden units of its block for the whole batch. It remains the same object."""
    module.__class__ = extended(type(module), BatchwiseBlock, block.method, "run_block")
    vars(module)["block"], vars(module)["p"] = block, p
