"""BiasActDropoutAdd: bias, activation, dropout and residual addition, as at the end of a feed-forward block.

Sources: Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016, arXiv:1606.08415 (GELU and SiLU, and GELU's
approximation by tanh).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.overrides import has_torch_function  # pyright: ignore[reportUnknownVariableType] (its stub has no types)

from dropkit import random
from dropkit.arguments import check
from dropkit.kernels.params import inverted
from dropkit.nn.checks import check_probability, check_shape, checked_rate
from dropkit.nn.draw_mask import draw_mask
from dropkit.nn.dropout import LAYER
from dropkit.nn.dropout_add import dropout_add
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.ops import fused

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]


def bias_act_dropout_add(
    input: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    activation: Activation = "gelu",
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Return `residual + dropout(activation(input + bias), p, training)`.

    .. math:: y = r + \mathrm{dropout}(a(x + b))

    The mask is that of `dropout` for the same key; values are those of the separate calls within one rounding. On a GPU
    one kernel does all of it, and one its gradient, which saves `input` alone; elsewhere dropout and addition take one
    pass over memory.

    Args:
        input: :math:`x`; float16, bfloat16, float32 or float64.
        bias: :math:`b`; None for 0.
        residual: :math:`r`.
        p: expected fraction of elements dropped, in [0, 1].
        training: if false, drop nothing.
        activation: :math:`a`: "relu", "gelu", "gelu_tanh" (GELU's approximation) or "silu".
        generator: where the key is drawn from; torch's default generator of the input's device if None.
        key: 64 bits, an int or a 0-d int64 tensor, or one of torch's own keys. Drawn if None.

    Shape:
        input, residual: (..., C); bias: (C). Returns (..., C).

    Raises:
        ValueError: `p` is not in [0, 1], `activation` is unknown, shapes do not fit, or `generator` and `key` are both
            given.

    Example:
        >>> x, r = torch.tensor([[-1.0, 1.0, 2.0, 3.0]]), torch.zeros(1, 4)
        >>> bias_act_dropout_add(x, torch.ones(4), r, 0.5, activation="relu", key=7)
        tensor([[0., 4., 0., 0.]])
    """
    rate = checked_rate(p)
    _check_activation(activation)
    check_shape("residual", residual, input.shape)
    check_shape("bias", bias, input.shape[-1:])
    tensors = (input, residual) if bias is None else (input, residual, bias)
    if training and not has_torch_function(tensors) and not isinstance(rate, Tensor) and rate > 0:
        params = inverted(rate)
        if fused.can_fuse(params, *tensors):
            key = None if key is None else random.check_key(key, generator, input)
            mask = draw_mask(LAYER, input, rate, generator, key)
            return fused.activate_drop_add(input, bias, residual, activation, mask)
    branch = fused.ACTIVATIONS[activation](input if bias is None else input + bias)
    return dropout_add(branch, residual, rate, training, generator=generator, key=key)


def _check_activation(name: str) -> None:
    check("activation", name in fused.ACTIVATIONS, f"one of {', '.join(fused.ACTIVATIONS)}", name)


class BiasActDropoutAdd(DynamicRate):
    """`dropkit.functional.bias_act_dropout_add` as a module with a bias, for a linear layer without one before it.

    Args:
        features: the size of the last dimension, C.
        p: expected fraction of elements dropped, in [0, 1].
        activation: "relu", "gelu", "gelu_tanh" or "silu".

    Example:
        >>> BiasActDropoutAdd(8, 0.1)
        BiasActDropoutAdd(8, p=0.1, activation=gelu)
    """

    activation: Activation
    _function = staticmethod(bias_act_dropout_add)

    def __init__(self, features: int, p: float = 0.5, activation: Activation = "gelu") -> None:
        super().__init__()
        check_probability(p)
        _check_activation(activation)
        self.features: int = features
        self.p: float = p
        self.activation = activation
        self.bias: nn.Parameter = nn.Parameter(torch.zeros(features))

    def forward(
        self, input: Tensor, residual: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None
    ) -> Tensor:
        """Return the sum; see the functional form."""
        return bias_act_dropout_add(
            input, self.bias, residual, self.rate, self.training,
            activation=self.activation, generator=generator, key=key,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{self.features}, p={self.p}, activation={self.activation}"
