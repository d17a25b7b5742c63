"""DropoutAddNorm: dropout, residual addition and normalisation, as between two sub-layers of a transformer.

Sources: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin, "Attention Is All You Need", 2017,
arXiv:1706.03762 (the combination); Ba, Kiros, Hinton, "Layer Normalization", 2016, arXiv:1607.06450; Zhang, Sennrich,
"Root Mean Square Layer Normalization", NeurIPS 2019, arXiv:1910.07467; Huang, Sun, Liu, Sedra, Weinberger, "Deep
Networks with Stochastic Depth", ECCV 2016, arXiv:1603.09382 (`row_scale`).
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.overrides import has_torch_function  # pyright: ignore[reportUnknownVariableType] (its stub has no types)

from dropkit import random
from dropkit.arguments import check
from dropkit.kernels.params import inverted
from dropkit.nn.checks import check_probability, check_shape, checked_rate
from dropkit.nn.draw_mask import draw_mask
from dropkit.nn.dropout import LAYER, dropout
from dropkit.nn.dropout_add import dropout_add
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.ops import fused

Norm = Literal["layer", "rms"]


def dropout_add_norm(
    input: Tensor,
    residual: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    p: float = 0.5,
    training: bool = True,
    *,
    norm: Norm = "layer",
    eps: float = 1e-5,
    row_scale: Tensor | None = None,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Drop a branch, add it to the residual and normalise the sum; return the norm and the sum.

    .. math:: s = r + c \cdot \mathrm{dropout}(x), \qquad y = \mathrm{norm}(s)

    The mask is that of `dropout` for the same key; values are those of the separate calls within one rounding. On a GPU
    one kernel does all of it, and one its gradient; elsewhere the sum takes one pass over memory and the norm another.

    Args:
        input: the branch that is dropped, :math:`x`; float16, bfloat16, float32 or float64.
        residual: what it is added to, :math:`r`.
        weight, bias: of the norm; None for 1 and 0. RMSNorm takes a bias as well.
        p: expected fraction of elements of the branch dropped, in [0, 1].
        training: if false, drop nothing.
        norm: over the last dimension; "layer" subtracts the mean, "rms" does not.
        eps: added to the variance.
        row_scale: :math:`c`, a factor for each row of the dropped branch: with stochastic depth at rate q, 0 or
            1 / (1 - q). It gets no gradient.
        generator: where the key is drawn from; torch's default generator of the input's device if None.
        key: 64 bits, an int or a 0-d int64 tensor, or one of torch's own keys. Drawn if None.

    Shape:
        input, residual: (..., C); weight, bias: (C); row_scale: (...). Returns two tensors (..., C).

    Raises:
        ValueError: `p` is not in [0, 1], `norm` is unknown, shapes do not fit, or `generator` and `key` are both given.

    Example:
        >>> y, s = dropout_add_norm(torch.ones(2, 4), torch.zeros(2, 4), p=0.5, key=7)
        >>> s
        tensor([[2., 2., 0., 0.],
                [0., 2., 0., 2.]])
        >>> y.round(decimals=3)
        tensor([[ 1.,  1., -1., -1.],
                [-1.,  1., -1.,  1.]])
    """
    rate = checked_rate(p)
    check("norm", norm in ("layer", "rms"), '"layer" or "rms"', norm)
    check("eps", isinstance(eps, (int, float)), "a number", eps)
    check("input", input.dim() > 0, "of at least one dimension", "none")
    check_shape("residual", residual, input.shape)
    check_shape("weight", weight, input.shape[-1:])
    check_shape("bias", bias, input.shape[-1:])
    check_shape("row_scale", row_scale, input.shape[:-1])
    if row_scale is not None:
        row_scale = row_scale.detach()
    operation = fused.Norm(weight, bias, row_scale, None, eps, norm == "layer")
    tensors = tuple(tensor for tensor in (input, residual, weight, bias, row_scale) if tensor is not None)
    if not has_torch_function(tensors) and not isinstance(rate, Tensor):
        params = inverted(rate) if training and rate > 0 else None
        if fused.can_fuse(params, *tensors):
            key = None if key is None else random.check_key(key, generator, input)
            if params is not None:
                operation = operation._replace(mask=draw_mask(LAYER, input, rate, generator, key))
            return fused.drop_add_norm(input, residual, operation)
    rate = cast("float", rate)
    if row_scale is None:
        summed = dropout_add(input, residual, rate, training, generator=generator, key=key)
    else:
        summed = residual + dropout(input, rate, training, generator=generator, key=key) * row_scale.unsqueeze(-1)
    return fused.norm_by_torch(summed, operation), summed


class DropoutAddNorm(DynamicRate):
    """`dropkit.functional.dropout_add_norm` as a module, with the weight and bias of `torch.nn.LayerNorm` or `RMSNorm`.

    Args:
        features: the size of the last dimension, C.
        p: expected fraction of elements of the branch dropped, in [0, 1].
        norm: "layer" or "rms".
        eps: added to the variance.
        bias: learn a bias; if None, for "layer" alone.

    Example:
        >>> DropoutAddNorm(8, 0.1)
        DropoutAddNorm(8, p=0.1, norm=layer, eps=1e-05)
    """

    bias: Tensor | None
    norm: Norm
    _function = staticmethod(dropout_add_norm)

    def __init__(
        self, features: int, p: float = 0.5, norm: Norm = "layer", eps: float = 1e-5, bias: bool | None = None
    ) -> None:
        super().__init__()
        check_probability(p)
        check("norm", norm in ("layer", "rms"), '"layer" or "rms"', norm)
        self.features: int = features
        self.p: float = p
        self.norm = norm
        self.eps: float = eps
        self.weight: nn.Parameter = nn.Parameter(torch.ones(features))
        wanted = norm == "layer" if bias is None else bias
        self.bias = nn.Parameter(torch.zeros(features)) if wanted else None

    def forward(
        self,
        input: Tensor,
        residual: Tensor,
        *,
        row_scale: Tensor | None = None,
        generator: Generator | None = None,
        key: Tensor | int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the norm and the sum; see the functional form."""
        return dropout_add_norm(
            input, residual, self.weight, self.bias, self.rate, self.training,
            norm=self.norm, eps=self.eps, row_scale=row_scale, generator=generator, key=key,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{self.features}, p={self.p}, norm={self.norm}, eps={self.eps}"
