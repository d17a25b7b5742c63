"""BatchwiseMLP: linear layers with dropout of whole hidden units between them; dropped units are not computed.

Source: Graham, Reizenstein, Robinson, "Efficient batchwise dropout training using submatrices", 2015, arXiv:1502.02478.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropkit.nn.batchwise_chain import BatchwiseChain
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.submatrix import Activation, dropped_columns


class BatchwiseMLP(BatchwiseChain):
    r"""An MLP whose hidden units are dropped for the whole batch at once, and not computed.

    Layer by layer it is what `FeedForward` is for two layers, and runs on submatrices where that does; between two
    hidden layers both rows and columns of the matrix are left out.

    Args:
        sizes: features of the input, of each hidden layer, and of the output.
        p: expected fraction of the units of each hidden layer dropped, in [0, 1].
        activation: elementwise; a function or a module. ReLU if None.
        bias: whether the linear layers have biases.
        device, dtype: of the parameters.

    Shape:
        input: (*, sizes[0]), output: (*, sizes[-1]).

    Raises:
        ValueError: `p` is not in [0, 1], there are fewer than two layers, or both `generator` and `key` are given.

    Example:
        >>> model = BatchwiseMLP((784, 1024, 1024, 10), 0.5)
        >>> model(torch.randn(50, 784)).shape
        torch.Size([50, 10])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        p: float = 0.5,
        activation: Activation | None = None,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        layers = [nn.Linear(before, after, bias, device, dtype) for before, after in pairwise(sizes)]
        super().__init__(layers, p, F.relu if activation is None else activation)

    @classmethod
    def from_layers(cls, layers: Iterable[nn.Module], activation: Activation, p: float) -> BatchwiseMLP:
        """The MLP of existing layers, which it shares; see the class for the arguments."""
        model = cls.__new__(cls)
        BatchwiseChain.__init__(model, layers, p, activation)
        return model


def _example(dtype: torch.dtype) -> tuple[Tensor, ...]:
    return (torch.randn(4, 8, dtype=dtype),)


def _dropped(output: Tensor, module: BatchwiseMLP) -> Tensor:
    return dropped_columns(output, module.layers[-1])


# Sigmoids are never 0, and a matrix with more rows than columns shows which of them were.
_ONE_HIDDEN = ComposedLayer(
    module=BatchwiseMLP, inputs=_example, dropped=_dropped, batch_dim=None,
    arguments={"sizes": (8, 16, 48), "activation": nn.Sigmoid()},
)  # fmt: skip
LAYER = replace(
    _ONE_HIDDEN,
    where="in place of an MLP with dropout, in batches of at least 64, 0.2 to 0.5",
    arguments={"sizes": (8, 12, 16, 48), "activation": nn.Sigmoid()},
    variants=(_ONE_HIDDEN,),
)
