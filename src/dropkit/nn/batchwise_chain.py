"""BatchwiseChain: what `BatchwiseMLP` and `BatchwiseConv` share."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Generator, Tensor, nn

from dropkit import random
from dropkit.arguments import check
from dropkit.nn.checks import check_probability
from dropkit.nn.draw_key import draw_key
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.nn.submatrix import Activation, Chain, run


class BatchwiseChain(DynamicRate):
    """Products with an activation and dropout of whole hidden units, for all samples alike, between each two.

    Args:
        layers: at least two `torch.nn.Linear` or two convolutions, which are shared.
        p: expected fraction of the units of each hidden layer dropped, in [0, 1].
        activation: elementwise; a function or a module.
    """

    def __init__(self, layers: Iterable[nn.Module], p: float, activation: Activation) -> None:
        super().__init__()
        check_probability(p)
        self.p: float = p
        self.activation: Activation = activation
        self.layers: nn.ModuleList = nn.ModuleList(layers)
        check("layers", len(self.layers) > 1, "at least two", len(self.layers))

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """The output, with dropout in training mode.

        Args:
            generator: where the key is drawn from; torch's default generator of the input's device if None.
            key: 64 bits, an int or a 0-d int64 tensor. Hidden layer i drops the units of `random.fold_in(key, i)`.
                Drawn if None.
        """
        key = draw_key(input, self.rate, self.training, generator, key)
        hidden = range(len(self.layers) - 1)
        keys = [None if key is None else random.fold_in(key, i) for i in hidden]
        return run(Chain(tuple(self.layers), self.activation, self.rate), input, self.training, keys)

    def extra_repr(self) -> str:
        return f"p={self.p}"
