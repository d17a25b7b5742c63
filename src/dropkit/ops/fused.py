"""Dropout with what stands around it, where a device has one kernel for all of it; gradients by one kernel, too."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from dropkit.kernels import FLOATS, gpu, kernel_for
from dropkit.kernels.gpu import fused
from dropkit.kernels.values import Values
from dropkit.ops import eager


def serves(input: Tensor, *others: Tensor | None) -> bool:
    """Whether the kernels take these: ordinary tensors on one GPU, each contiguous, of one dtype but not float64."""
    tensors = (input, *(one for one in others if one is not None))
    return (
        kernel_for(input.device.type).drop is gpu.drop
        and input.dtype in FLOATS - {torch.float64}
        and 0 < input.shape[-1] <= fused.MOST_COLUMNS
        and input.numel() > 0
        and all(
            eager.serves(one) and one.device == input.device and one.dtype == input.dtype and one.is_contiguous()
            for one in tensors
        )
    )


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        residual: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        row_scale: Tensor | None,
        key: Tensor | int,
        values: Values | None,
        eps: float,
        centred: bool,
    ) -> tuple[Tensor, Tensor]:
        output, summed, mean, spread = fused.norm_forward(
            input, residual, weight, bias, row_scale, key, values, eps, centred
        )
        ctx.save_for_backward(summed, mean, spread, weight, row_scale)
        ctx.rest = bias is not None, key, values, centred
        ctx.set_materialize_grads(False)
        return output, summed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        summed, mean, spread, weight, row_scale = ctx.saved_tensors
        bias, key, values, centred = ctx.rest
        grad_output, grad_summed = grads
        grad_output = torch.zeros_like(summed) if grad_output is None else grad_output.contiguous()
        grad_summed = None if grad_summed is None else grad_summed.contiguous()
        of_input, of_residual, of_weight, of_bias = fused.norm_backward(
            grad_output, grad_summed, summed, mean, spread, weight, bias, row_scale, key, values, centred
        )
        return of_input, of_residual, of_weight, of_bias, None, None, None, None, None


def norm(
    input: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    row_scale: Tensor | None,
    key: Tensor | int,
    values: Values | None,
    eps: float,
    centred: bool,
) -> tuple[Tensor, Tensor]:
    """The norm of `residual + row_scale * drop(input)`, and the sum itself; see `fused.norm_forward`."""
    key = eager._own(key)
    given = input, residual, weight, bias, row_scale, key, values, eps, centred
    return cast("tuple[Tensor, Tensor]", _Norm.apply(*given))


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        bias: Tensor | None,
        residual: Tensor,
        activation: str,
        key: Tensor | int,
        values: Values,
    ) -> Tensor:
        ctx.save_for_backward(input, bias)
        ctx.rest = activation, key, values
        return fused.activation_forward(input, bias, residual, activation, key, values)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        input, bias = ctx.saved_tensors
        of_input = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            of_input = fused.activation_backward(grads[0].contiguous(), input, bias, *ctx.rest)
        of_bias = None
        if ctx.needs_input_grad[1]:
            assert of_input is not None
            of_bias = of_input.flatten(0, -2).sum(0) if of_input.dim() > 1 else of_input
        return of_input, of_bias, grads[0], None, None, None


def activation(
    input: Tensor, bias: Tensor | None, residual: Tensor, name: str, key: Tensor | int, values: Values
) -> Tensor:
    """`residual + drop(activation(input + bias))`; see `fused.activation_forward`."""
    return cast("Tensor", _Activation.apply(input, bias, residual, name, eager._own(key), values))
