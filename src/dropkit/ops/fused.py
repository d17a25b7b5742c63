"""Dropout with what stands around it, where a device has one kernel for all of it; gradients by one kernel, too.

Whatever wants to look inside, a compiler, a transform, a second derivative, gets the separate calls.
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
from dropkit.kernels.params import DropoutParams
from dropkit.ops import autograd
from dropkit.torch_private import in_forward_mode

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


def normed(summed: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, centred: bool) -> Tensor:
    """LayerNorm, or RMSNorm with a bias, over the last dimension, by torch."""
    if centred:
        return F.layer_norm(summed, summed.shape[-1:], weight, bias, eps)
    output = F.rms_norm(summed, summed.shape[-1:], weight, eps)
    return output if bias is None else output + bias


def serves(values: DropoutParams | None, input: Tensor, *others: Tensor | None) -> bool:
    """Whether the kernels take these: ordinary tensors on one GPU, each contiguous, of one dtype but not float64.

    Args:
        values: None to drop nothing.
    """
    if not autograd.serves(input) or in_forward_mode() or (values is not None and values.threshold >= 2**32):
        return False
    tensors = (input, *(one for one in others if one is not None))
    return (
        kernel_for(input.device.type).drop is gpu.drop
        # Where the separate calls would change the dtype.
        and not torch.is_autocast_enabled(input.device.type)
        and input.dtype in FLOATS - {torch.float64}
        and input.dim() > 0
        and input.shape[-1] <= fused.MOST_COLUMNS
        and input.numel() > 0
        and all(
            autograd.serves(one) and one.device == input.device and one.dtype == input.dtype and one.is_contiguous()
            for one in tensors
        )
    )


def _takes(*grads: Tensor | None) -> bool:
    """Whether a kernel may take these gradients, and nobody will ask for theirs."""
    return not torch.is_grad_enabled() and all(grad is None or autograd.serves(grad) for grad in grads)


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
        values: DropoutParams | None,
        eps: float,
        centred: bool,
    ) -> tuple[Tensor, Tensor]:
        output, summed, mean, spread = fused.norm_forward(
            input, residual, weight, bias, row_scale, key, values, eps, centred
        )
        ctx.save_for_backward(summed, mean, spread, weight, bias, row_scale)
        ctx.rest = key, values, eps, centred
        ctx.set_materialize_grads(False)
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            ctx.mark_non_differentiable(summed)
        return output, summed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad_output, grad_summed = grads
        if _takes(*grads) and grad_output is not None:
            summed, mean, spread, weight, bias, row_scale = ctx.saved_tensors
            key, values, _, centred = ctx.rest
            grad_summed = None if grad_summed is None else grad_summed.contiguous()
            of = fused.norm_backward(
                grad_output.contiguous(), grad_summed, summed, mean, spread, weight, bias is not None, row_scale,
                key, values, centred,
            )  # fmt: skip
            return *of, None, None, None, None, None
        return *_by_calls(ctx, grad_output, grad_summed), None, None, None, None, None


def _by_calls(ctx: Any, grad_output: Tensor | None, grad_summed: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients of input, residual, weight and bias, by calls that have derivatives themselves."""
    summed, _, _, weight, bias, row_scale = ctx.saved_tensors
    key, values, eps, centred = ctx.rest
    of_sum, of_affine = grad_summed, dict[int, Tensor]()
    if grad_output is not None:
        with torch.enable_grad():
            start = summed if summed.requires_grad else summed.detach().requires_grad_()
            output = normed(start, weight, bias, eps, centred)
        asked = [(place, one) for place, one in ((2, weight), (3, bias)) if one is not None and one.requires_grad]
        tensors = [start, *(one for _, one in asked)]
        found = torch.autograd.grad(output, tensors, grad_output, create_graph=torch.is_grad_enabled())
        of_affine = {place: grad for (place, _), grad in zip(asked, found[1:], strict=True)}
        of_sum = found[0] if grad_summed is None else found[0] + grad_summed
    of_input = of_sum
    if of_input is not None and row_scale is not None:
        of_input = of_input * row_scale.unsqueeze(-1)
    if of_input is not None and values is not None:
        of_input = autograd._again(of_input, (key, values, None, 0), None)
    return of_input, of_sum, of_affine.get(2), of_affine.get(3)


def norm(
    input: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    row_scale: Tensor | None,
    key: Tensor | int,
    values: DropoutParams | None,
    eps: float,
    centred: bool,
) -> tuple[Tensor, Tensor]:
    """The norm of `residual + row_scale * drop(input)`, and the sum itself; see `fused.norm_forward`."""
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
        values: DropoutParams,
    ) -> Tensor:
        ctx.save_for_backward(input, bias)
        ctx.rest = activation, key, values
        return fused.activation_forward(input, bias, residual, activation, key, values)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        saved: tuple[Tensor, Tensor | None] = ctx.saved_tensors
        input, bias = saved
        name, key, values = ctx.rest
        wants_input, wants_bias = ctx.needs_input_grad[:2]
        if not (wants_input or wants_bias):
            return None, None, grad, None, None, None
        if _takes(grad):
            of_input = fused.activation_backward(grad.contiguous(), input, bias, name, key, values)
        else:
            with torch.enable_grad():
                start = input if bias is None else input + bias
                start = start if start.requires_grad else start.detach().requires_grad_()
                output = ACTIVATIONS[name](start)
            dropped = autograd._again(grad, (key, values, None, 0), None)
            (of_input,) = torch.autograd.grad(output, start, dropped, create_graph=torch.is_grad_enabled())
        of_bias = of_input.sum_to_size(cast("Tensor", bias).shape) if wants_bias else None
        return of_input, of_bias, grad, None, None, None


def activation(
    input: Tensor, bias: Tensor | None, residual: Tensor, name: str, key: Tensor | int, values: DropoutParams
) -> Tensor:
    """`residual + drop(activation(input + bias))`; see `fused.activation_forward`."""
    return cast("Tensor", _Activation.apply(input, bias, residual, name, key, values))
