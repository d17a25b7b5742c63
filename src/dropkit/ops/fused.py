"""Autograd for the fused GPU kernels: dropout with addition and normalisation, and with bias, activation and addition.

Compilers, transforms and second derivatives, which look inside, get the separate calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dropkit.kernels import FLOATS, gpu, kernel_for
from dropkit.kernels.gpu import fused
from dropkit.kernels.gpu.fused import Norm
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import DropoutParams
from dropkit.ops import autograd, slices
from dropkit.torch_private import in_forward_mode

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


def norm_by_torch(summed: Tensor, norm: Norm) -> Tensor:
    """LayerNorm, or RMSNorm with a bias, of a sum over its last dimension."""
    if norm.is_centred:
        return F.layer_norm(summed, summed.shape[-1:], norm.weight, norm.bias, norm.eps)
    output = F.rms_norm(summed, summed.shape[-1:], norm.weight, norm.eps)
    return output if norm.bias is None else output + norm.bias


def can_fuse(params: DropoutParams | None, input: Tensor, *others: Tensor) -> bool:
    """Whether the kernels take these: ordinary contiguous tensors on one GPU, of one dtype but not float64.

    Args:
        params: None to drop nothing. The kernels cannot drop everything.
    """
    if (params is not None and params.drops_all) or not autograd.can_use_fast_path(input) or in_forward_mode():
        return False
    if slices.is_used and slices.state.parts:  # the kernels number mask elements as those of the input alone
        return False
    return (
        kernel_for(input.device.type).drop is gpu.drop
        # The separate calls would change the dtype under autocast.
        and not torch.is_autocast_enabled(input.device.type)
        and input.dtype in FLOATS - {torch.float64}
        and input.dim() > 0
        and input.shape[-1] <= fused.MAX_COLUMNS
        and input.numel() > 0
        and all(
            autograd.can_use_fast_path(tensor)
            and tensor.device == input.device
            and tensor.dtype == input.dtype
            and tensor.is_contiguous()
            for tensor in (input, *others)
        )
    )


def _can_use_kernel(*grads: Tensor | None) -> bool:
    """Whether a kernel may take these gradients, and no second derivative is wanted."""
    return not torch.is_grad_enabled() and all(grad is None or autograd.can_use_fast_path(grad) for grad in grads)


class _DropAddNorm(torch.autograd.Function):
    """`weight` and `bias` are arguments of their own because autograd does not look into `norm`."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, norm: Norm
    ) -> tuple[Tensor, Tensor]:
        output, summed, mean, rstd = fused.norm_forward(input, residual, norm)
        ctx.save_for_backward(summed, mean, rstd, weight, bias, norm.row_scale)
        ctx.norm = norm._replace(weight=None, bias=None, row_scale=None)
        ctx.set_materialize_grads(False)
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            ctx.mark_non_differentiable(summed)
        return output, summed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad_output, grad_summed = grads
        summed, mean, rstd, weight, bias, row_scale = ctx.saved_tensors
        norm: Norm = ctx.norm._replace(weight=weight, bias=bias, row_scale=row_scale)
        if _can_use_kernel(*grads) and grad_output is not None:
            grad_summed = None if grad_summed is None else grad_summed.contiguous()
            return *fused.norm_backward(grad_output.contiguous(), grad_summed, summed, mean, rstd, norm), None
        return *_gradients_by_torch(grad_output, grad_summed, summed, norm), None


def _gradients_by_torch(
    grad_output: Tensor | None, grad_summed: Tensor | None, summed: Tensor, norm: Norm
) -> tuple[Tensor | None, ...]:
    """The gradients of input, residual, weight and bias, by calls that have derivatives themselves."""
    grad_sum, grad_affine = grad_summed, dict[str, Tensor]()
    if grad_output is not None:
        with torch.enable_grad():
            start = summed if summed.requires_grad else summed.detach().requires_grad_()
            output = norm_by_torch(start, norm)
        named = {"weight": norm.weight, "bias": norm.bias}
        affine = {name: tensor for name, tensor in named.items() if tensor is not None and tensor.requires_grad}
        tensors = [start, *affine.values()]
        grad_start, *rest = torch.autograd.grad(output, tensors, grad_output, create_graph=torch.is_grad_enabled())
        grad_affine = dict(zip(affine, rest, strict=True))
        grad_sum = grad_start if grad_summed is None else grad_start + grad_summed
    grad_input = grad_sum
    if grad_input is not None and norm.row_scale is not None:
        grad_input = grad_input * norm.row_scale.unsqueeze(-1)
    if grad_input is not None and norm.mask is not None:
        grad_input = autograd.apply_same_mask(grad_input, norm.mask)
    return grad_input, grad_sum, grad_affine.get("weight"), grad_affine.get("bias")


def drop_add_norm(input: Tensor, residual: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The norm of `residual + row_scale * drop(input)`, and the sum itself; see `fused.norm_forward`."""
    return cast("tuple[Tensor, Tensor]", _DropAddNorm.apply(input, residual, norm.weight, norm.bias, norm))


class _ActivateDropAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, bias: Tensor | None, residual: Tensor, activation: str, mask: Mask) -> Tensor:
        ctx.save_for_backward(input, bias)
        ctx.activation, ctx.mask = activation, mask
        return fused.activation_forward(input, bias, residual, activation, mask)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        saved: tuple[Tensor, Tensor | None] = ctx.saved_tensors
        input, bias = saved
        wants_input, wants_bias = ctx.needs_input_grad[:2]
        if not (wants_input or wants_bias):
            return None, None, grad, None, None
        if _can_use_kernel(grad):
            grad_input = fused.activation_backward(grad.contiguous(), input, bias, ctx.activation, ctx.mask)
        else:
            with torch.enable_grad():
                start = input if bias is None else input + bias
                start = start if start.requires_grad else start.detach().requires_grad_()
                output = ACTIVATIONS[ctx.activation](start)
            dropped = autograd.apply_same_mask(grad, ctx.mask)
            (grad_input,) = torch.autograd.grad(output, start, dropped, create_graph=torch.is_grad_enabled())
        grad_bias = grad_input.sum_to_size(cast("Tensor", bias).shape) if wants_bias else None
        return grad_input, grad_bias, grad, None, None


def activate_drop_add(input: Tensor, bias: Tensor | None, residual: Tensor, activation: str, mask: Mask) -> Tensor:
    """`residual + drop(activation(input + bias))`; see `fused.activation_forward`."""
    return cast("Tensor", _ActivateDropAdd.apply(input, bias, residual, activation, mask))
