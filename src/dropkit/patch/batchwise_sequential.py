"""Linear layers and activations of a Sequential, run without the hidden units that dropout zeroes for the whole batch.

Source: Graham, Reizenstein, Robinson, "Efficient batchwise dropout training using submatrices", 2015, arXiv:1502.02478.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.nn.submatrix import Chain, run
from dropkit.patch.changes import described
from dropkit.patch.counterparts import of_torch


class BatchwiseSequential(DynamicRate, nn.Sequential):
    """A Sequential that drops the hidden units between its linear layers at rate `p`, as `FeedForward` does.

    `retrofit` gives this class to a Sequential, whose modules keep their names. Dropout layers inside of the blocks are
    passed over.
    """

    def forward(self, input: Tensor) -> Tensor:
        layers = list(self.children())
        while layers:
            linear, activation, length = leading_block(layers)
            if activation is None:
                input = layers.pop(0)(input)
            else:
                function: Callable[[Tensor], Tensor] = activation
                input = run(Chain(linear, function, self.rate), input, self.training, (None,) * (len(linear) - 1))
                del layers[:length]
        return input


def blocks(model: nn.Module) -> list[nn.Sequential]:
    """The Sequentials of a model in which linear layers have activations between them."""
    return [m for m in model.modules() if type(m) is nn.Sequential and _has_block(list(m.children()))]


def leading_block(layers: list[nn.Module]) -> tuple[list[nn.Module], nn.Module | None, int]:
    """The linear layers of the block that `layers` begin with, its activation, and its length; None if there is none.

    Its activations are equal, and each may be followed by a dropout layer of torch or dropkit.
    """
    linear, activation, end = layers[:1], None, 1
    while isinstance(linear[-1], nn.Linear) and end + 1 < len(layers):
        function = layers[end]
        after = end + 1 + is_dropout(layers[end + 1])
        if not _is_elementwise(function) or after >= len(layers) or not isinstance(layers[after], nn.Linear):
            break
        if activation is not None and described(function) != described(activation):
            break
        activation, end = function, after + 1
        linear.append(layers[after])
    return linear, activation, end


def _has_block(layers: list[nn.Module]) -> bool:
    return any(leading_block(layers[start:])[1] is not None for start in range(len(layers)))


def is_dropout(module: Any) -> bool:
    return isinstance(module, nn.Dropout) and (of_torch(module) is not None or isinstance(module, DynamicRate))


def _is_elementwise(module: nn.Module) -> bool:
    known = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.ELU, nn.LeakyReLU, nn.Mish, nn.Softplus, nn.ReLU6,
             nn.Hardswish, nn.CELU, nn.SELU)  # fmt: skip
    return isinstance(module, known) and next(module.children(), None) is None
