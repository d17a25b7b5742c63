"""DropoutAdd: dropout of a branch and its addition to the residual, in one pass over memory.

Source: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin, "Attention Is All You Need", 2017,
arXiv:1706.03762, section 5.4 (dropout of each sub-layer's output, before it is added to the sub-layer's input).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.overrides import has_torch_function  # pyright: ignore[reportUnknownVariableType] (its stub has no types)

from dropkit import random
from dropkit.kernels import FLOATS
from dropkit.nn.checks import check_probability, checked_rate
from dropkit.nn.draw_mask import draw_mask
from dropkit.nn.dropout import LAYER, dropout
from dropkit.nn.dynamic_rate import DynamicRate
from dropkit.ops import autograd


def dropout_add(
    input: Tensor,
    residual: Tensor,
    p: float | Tensor = 0.5,
    training: bool = True,
    *,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Return `residual + dropout(input, p, training)`, bit by bit, without writing the dropped branch to memory.

    Args:
        input: the branch that is dropped; float16, bfloat16, float32 or float64.
        residual: what it is added to.
        p: expected fraction of elements dropped, in [0, 1].
        training: if false, return `residual + input`.
        generator: where the key is drawn from; torch's default generator of the input's device if None.
        key: 64 bits, an int or a 0-d int64 tensor, or one of torch's own keys; equal keys and shapes give equal masks.
            Drawn if None.

    Shape:
        input, residual: any that broadcast; output: what they broadcast to. One mask element for each element of
        `input`. Inputs of one shape and dtype take one pass over memory, others two.

    Raises:
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.

    Example:
        >>> dropout_add(torch.ones(6), torch.full((6,), 10.0), 0.5, key=7)
        tensor([12., 12., 10., 10., 10., 12.])
    """
    rate = checked_rate(p)
    if isinstance(rate, Tensor) or not _fits_one_pass(input, residual, rate):
        return residual + dropout(input, rate, training, generator=generator, key=key)
    if key is not None:
        key = random.check_key(key, generator, input)
    if not training:
        return residual + input
    return autograd.drop_add(input, residual, draw_mask(LAYER, input, rate, generator, key))


def _fits_one_pass(input: Tensor, residual: Tensor, p: float) -> bool:
    """Whether both are ordinary tensors of one layout, and some of `input` is dropped."""
    return (
        not has_torch_function((input, residual))
        and 0 < p < 1
        and autograd.can_use_fast_path(input)
        and autograd.is_ordinary(residual)
        and input.dtype == residual.dtype
        and input.shape == residual.shape
        # Otherwise the sum has the strides of `residual`.
        and input.stride() == residual.stride()
        and input.device == residual.device
        and input.dtype in FLOATS
        and input.layout is residual.layout is torch.strided
        and not input.is_nested
        and not residual.is_nested
        and input.numel() > 0
    )


class DropoutAdd(DynamicRate):
    """`dropkit.functional.dropout_add` as a module: drop in training mode, only add in eval mode.

    Args:
        p: expected fraction of elements of the branch dropped, in [0, 1].

    Example:
        >>> DropoutAdd(0.1)
        DropoutAdd(p=0.1)
    """

    p: float
    _function = staticmethod(dropout_add)

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_probability(p)
        self.p = p

    def forward(
        self, input: Tensor, residual: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None
    ) -> Tensor:
        """Add the dropped `input` to `residual`; see the functional form."""
        return dropout_add(input, residual, self.rate, self.training, generator=generator, key=key)

    def extra_repr(self) -> str:
        return f"p={self.p}"
