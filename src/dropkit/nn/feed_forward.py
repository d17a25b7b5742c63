"""FeedForward: linear layer, activation, dropout of whole hidden units, linear layer; dropped units are not computed.

Source: Graham, Reizenstein, Robinson, "Efficient batchwise dropout training using submatrices", 2015, arXiv:1502.02478;
with a gate: Shazeer, "GLU Variants Improve Transformer", 2020, arXiv:2002.05202.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from dropkit.nn.checks import check_probability
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.nn.submatrix import Activation, Chain, dropped_columns, run


class FeedForward(DynamicRate):
    r"""A transformer's feed-forward block whose hidden units are dropped for the whole batch at once.

    .. math:: y = W_2\, (k \odot a(W_1 x + b_1)) / (1 - p) + b_2, \qquad k_h \sim \mathrm{Bernoulli}(1 - p)

    All samples and positions of a call share the mask :math:`k`. So the rows of :math:`W_1` and the columns of
    :math:`W_2` that belong to dropped units are left out, forward and backward, which makes training faster than with
    dropout by element, and from moderate rates on faster than without dropout. Output and gradients are those of the
    plain layers with the mask of the same key, up to the order of sums.

    Small batches, compiled code, captured graphs, transforms, function modes such as Monte Carlo dropout's, and layers
    with hooks or special weights run the plain products and the mask instead. Nothing waits for a GPU.

    A mask that the batch shares makes gradients noisier than one by element: lower the learning rate where
    training gets unstable. docs/batchwise.md says when it pays and how it regularises.

    Args:
        d_model: features of the input and the output.
        d_hidden: hidden units.
        p: expected fraction of hidden units dropped, in [0, 1].
        activation: :math:`a`, elementwise; a function or a module. ReLU if None.
        bias: whether the linear layers have biases.
        gated: multiply the activations by a second product of the input, `gate`, as SwiGLU does.
        device, dtype: of the parameters.

    Shape:
        input: (*, d_model), output: the same.

    Raises:
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.

    Example:
        >>> import torch.nn.functional as F
        >>> block, x = FeedForward(64, 256, 0.5), torch.randn(512, 64)
        >>> y = block(x, key=7)
        >>> hidden = dropkit.functional.dropout(F.relu(block.linear1(x)), 0.5, noise_shape=(1, 256), key=7)
        >>> torch.allclose(y, block.linear2(hidden), atol=1e-5)
        True
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        p: float = 0.5,
        activation: Activation | None = None,
        *,
        bias: bool = True,
        gated: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_probability(p)
        self.p: float = p
        self.activation: Activation = F.relu if activation is None else activation
        self.linear1: nn.Module = nn.Linear(d_model, d_hidden, bias, device, dtype)
        self.gate: nn.Module | None = nn.Linear(d_model, d_hidden, bias, device, dtype) if gated else None
        self.linear2: nn.Module = nn.Linear(d_hidden, d_model, bias, device, dtype)

    @classmethod
    def from_layers(
        cls, linear1: nn.Module, activation: Activation, linear2: nn.Module, p: float, *, gate: nn.Module | None = None
    ) -> FeedForward:
        """The block of existing layers, which it shares.

        Args:
            linear1: the layer before the activation. Only `torch.nn.Linear` layers run on submatrices.
            activation: elementwise; a function or a module.
            linear2: the layer after the dropout.
            p: expected fraction of hidden units dropped, in [0, 1].
            gate: the layer whose product with the input multiplies the activations; None if there is none.

        Raises:
            ValueError: `p` is not in [0, 1].

        Example:
            >>> up, down = torch.nn.Linear(4, 16), torch.nn.Linear(16, 4)
            >>> FeedForward.from_layers(up, torch.nn.GELU(), down, 0.1).linear1 is up
            True
        """
        check_probability(p)
        block = cls.__new__(cls)
        nn.Module.__init__(block)
        block.p, block.activation = p, activation
        block.linear1, block.gate, block.linear2 = linear1, gate, linear2
        return block.train(linear1.training)

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """The output, with dropout in training mode.

        Args:
            input: (*, d_model).
            generator: where the key is drawn from; torch's default generator of the input's device if None.
            key: 64 bits, an int or a 0-d int64 tensor; equal keys drop the same units. Drawn if None.
        """
        chain = Chain((self.linear1, self.linear2), self.activation, self.rate, self.gate)
        return run(chain, input, self.training, (key,), generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _example(dtype: torch.dtype) -> tuple[Tensor, ...]:
    return (torch.randn(2, 3, 48, dtype=dtype),)


def _dropped(output: Tensor, module: FeedForward) -> Tensor:
    return dropped_columns(output, module.linear2)


# Sigmoids are never 0, and a matrix with more rows than columns shows which of them were.
_PLAIN = ComposedLayer(
    module=FeedForward,
    inputs=_example,
    dropped=_dropped,
    batch_dim=None,
    arguments={"d_model": 48, "d_hidden": 16, "activation": nn.Sigmoid()},
    where="in place of a transformer's feed-forward block, 0.1; in wide blocks up to 0.5",
)
LAYER = replace(_PLAIN, variants=(replace(_PLAIN, arguments={**_PLAIN.arguments, "gated": True, "bias": False}),))
