"""Select rows and columns of a weight, with a gradient that is zero elsewhere.

torch's own `index_select` has the same gradient, but adds columns up element by element, which takes many times longer
than these copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor


class Submatrix(NamedTuple):
    """A part of a weight.

    Attributes:
        rows: indices along dimension 0, int64 (R); None for all.
        columns: indices along dimension 1, int64 (C); None for all.
        scale: what each of the columns is multiplied by, float64 (C); None where all are taken.
    """

    rows: Tensor | None = None
    columns: Tensor | None = None
    scale: Tensor | None = None

    def scaled(self, values: Tensor) -> Tensor:
        """`values`, of shape (*, C, *) like the part, multiplied by column; in place."""
        if self.scale is None:
            return values
        # In float32 at least, so that a factor is not rounded to half precision.
        scale = self.scale if values.dtype == torch.float64 else self.scale.float()
        return values.mul_(scale.view(-1, *(1,) * (values.dim() - 2)))


def cut(weight: Tensor, part: Submatrix) -> Tensor:
    """The part of a weight, as a new tensor; differentiable any number of times.

    Shape:
        weight: (M, N, *); with rows only, also (M). Returns (R, C, *).
    """
    return weight if part.rows is None and part.columns is None else _apply_cut(weight, part)


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, part: Submatrix) -> Tensor:
        ctx.shape, ctx.part = weight.shape, part
        if part.rows is not None:
            weight = weight.index_select(0, part.rows)
        return weight if part.columns is None else part.scaled(weight.index_select(1, part.columns))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _apply_paste(grads[0], ctx.shape, ctx.part), None


class _Paste(torch.autograd.Function):
    """The transpose of `_Cut`: write a part into zeros."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, shape: torch.Size, part: Submatrix) -> Tensor:
        ctx.part = part
        if part.columns is not None:
            # In the shape of a matrix `scatter_` takes half the time of `index_copy_`.
            values = part.scaled(grad.clone())
            index = part.columns.view(-1, *(1,) * (grad.dim() - 2)).expand_as(grad)
            grad = grad.new_zeros(grad.shape[0], *shape[1:]).scatter_(1, index, values)
        if part.rows is not None:
            grad = grad.new_zeros(shape).index_add_(0, part.rows, grad)
        return grad

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _apply_cut(grads[0], ctx.part), None, None


_apply_cut, _apply_paste = (cast("Callable[..., Tensor]", cast("Any", function).apply) for function in (_Cut, _Paste))
