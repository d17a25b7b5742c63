"""Dropout of ordinary tensors in eager mode: straight to the kernel, with gradients.

Gradients come from ctx-style `torch.autograd.Function`s; the `setup_context` style, which torch.func needs, costs 14 us
more a call. Backward saves nothing but the key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from dropkit import kernels
from dropkit.kernels.key import Key, batch_shape, read
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import IDENTITY
from dropkit.ops import custom_op
from dropkit.torch_private import (
    call_backward_directly,
    count_dispatch_modes,
    functorch_interpreter,
    in_forward_mode,
    is_exporting,
    is_functionalized_for_export,
    is_legacy_batched,
    is_zero_tensor,
    may_be_written,
    tracing_state,
)

_TYPES = (Tensor, torch.nn.Parameter)


def can_use_fast_path(input: Tensor) -> bool:
    """Whether `input` is an ordinary tensor with memory, and nothing needs to see the operators that run.

    False for subclasses, for tensors that are lazily negated, zero or batched, and under modes, transforms and tracers.
    """
    # `is_being_traced` and `is_ordinary`, inlined.
    return (
        not (
            is_dynamo_compiling()
            or functorch_interpreter() is not None
            or count_dispatch_modes()
            or tracing_state() is not None
        )
        and type(input) in _TYPES
        and not input.is_neg()
        and not is_zero_tensor(input)
        and not is_legacy_batched(input)
    )


def is_plain(input: Tensor) -> bool:
    """Whether `input` can take the fast path, outside of forward mode, and is contiguous, of a CPU or GPU, not empty.

    `drop_plain` asks nothing else of it: the time of a call on few elements goes into such questions.
    """
    # `is_being_traced`, inlined.
    try:
        return (
            not (
                is_dynamo_compiling()
                or functorch_interpreter() is not None
                or count_dispatch_modes()
                or tracing_state() is not None
                or in_forward_mode()
            )
            and type(input) in _TYPES
            and (input.is_cpu or input.is_cuda)
            and input.dtype in kernels.FLOATS
            and input.is_contiguous()
            # Empty and lazily zero tensors have address 0. Batched, sparse and other tensors without memory raise.
            and input.data_ptr() != 0
            and not input.is_neg()
            and not input.is_nested
        )
    except RuntimeError:
        return False


def is_ordinary(tensor: Tensor) -> bool:
    """Whether `tensor` is no subclass, and neither lazily negated nor zero nor batched."""
    return (
        type(tensor) in _TYPES and not tensor.is_neg() and not is_zero_tensor(tensor) and not is_legacy_batched(tensor)
    )


def is_being_traced() -> bool:
    """Whether a compiler, transform, mode or tracer needs to see the operators that run, whatever their input."""
    return (
        is_dynamo_compiling()
        or functorch_interpreter() is not None
        or bool(count_dispatch_modes())
        or tracing_state() is not None
    )


def is_being_exported() -> bool:
    """Whether a program for other tools is recorded: by torch.export, or decomposed, or compiled ahead of time."""
    if is_dynamo_compiling():
        return is_exporting()
    return bool(count_dispatch_modes()) and (is_exporting() or is_functionalized_for_export())


def drop(input: Tensor, mask: Mask) -> Tensor:
    """Dropout out of place. Backward reads the mask's key again, so nobody may write to it: see `detach_key`."""
    if input.is_sparse:
        return custom_op.drop(input, mask)
    if (input.requires_grad and torch.is_grad_enabled()) or in_forward_mode():
        return _apply_drop(input, mask)
    output = torch.empty_like(input)
    kernels.drop(output, input, mask)
    return output


def drop_plain(input: Tensor, mask: Mask) -> Tensor:
    """`drop` of an input that `is_plain`, by a key that is an int or was drawn for this call."""
    if input.requires_grad and torch.is_grad_enabled():
        return _apply_drop_plain(input, mask)
    return kernels.dropped_plain(input, mask)


def drop_(input: Tensor, mask: Mask) -> Tensor:
    """`drop` in place. Whatever torch forbids is raised before anything is written."""
    refuse_in_place(input)
    if in_forward_mode():
        # A Function would have to write the tangent in place too, which torch cannot do for a batched one.
        return input.copy_(drop(input, mask))
    if input.requires_grad and torch.is_grad_enabled():
        input = _apply_drop_(input, mask)
    elif not input.is_inference():
        torch.autograd.graph.increment_version(input)
    kernels.drop(input, input, mask)
    return input


def drop_add(input: Tensor, residual: Tensor, mask: Mask) -> Tensor:
    """`residual + drop(input, mask)` in one pass over memory, bit for bit; both of one shape and dtype."""
    needs_grad = (input.requires_grad or residual.requires_grad) and torch.is_grad_enabled()
    if needs_grad or in_forward_mode():
        return _apply_drop_add(input, residual, mask)
    return _dropped_and_added(input, residual, mask)


def _dropped_and_added(input: Tensor, residual: Tensor, mask: Mask) -> Tensor:
    output = torch.empty_like(input)
    kernels.drop(output, input, mask, residual)
    return output


def detach_key(key: Key) -> Key:
    """A caller's key as it is now: backward must not see what the caller writes to the tensor later."""
    if not isinstance(key, Tensor):
        return key
    return read(key) if key.is_cpu and not batch_shape(key) else key.clone()


def refuse_in_place(input: Tensor) -> None:
    """Raise torch's error for a write to `input` that torch forbids, before anything is written."""
    if input.requires_grad and torch.is_grad_enabled() and not may_be_written(input):
        input.mul_(1)  # raises torch's error
    if any(stride == 0 and size > 1 for stride, size in zip(input.stride(), input.shape, strict=True)):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )
    if input.is_inference() and not torch.is_inference_mode_enabled():
        # Raises torch's error, and would write no element.
        input.as_strided((0,), (1,)).zero_()


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, mask: Mask) -> Tensor:
        output = torch.empty_like(input)
        kernels.drop(output, input, mask)
        # An expanded gradient has no layout of its own: it gets the output's.
        ctx.saved = mask, None if output.is_contiguous() else output.stride()
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return apply_same_mask(grads[0], *ctx.saved), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return apply_same_mask(tangents[0], *ctx.saved)


class _DropPlain(torch.autograd.Function):
    """`_Drop` of an input that `is_plain`. A gradient that is not, or will be differentiated, takes the general way."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return kernels.dropped_plain(input, mask)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        mask = ctx.mask
        if torch.is_grad_enabled() or not is_plain(grad):
            return apply_same_mask(grad, mask), None
        mask = mask.gradient
        if mask.params is IDENTITY:
            return grad, None
        return kernels.dropped_plain(grad, mask), None


class _DropInPlace(torch.autograd.Function):
    """Record the graph alone; the caller writes afterwards, so that an error of autograd leaves the input unchanged."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        ctx.mark_dirty(input)
        return input

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return apply_same_mask(grads[0], ctx.mask), None


class _DropAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, residual: Tensor, mask: Mask) -> Tensor:
        output = _dropped_and_added(input, residual, mask)
        ctx.saved = mask, None if output.is_contiguous() else output.stride()
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return apply_same_mask(grads[0], *ctx.saved) if ctx.needs_input_grad[0] else None, grads[0], None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        input_tangent, residual_tangent, _ = tangents
        return apply_same_mask(input_tangent, *ctx.saved) + residual_tangent


for _function in (_Drop, _DropPlain, _DropInPlace, _DropAdd):
    call_backward_directly(_function)

# The base class's `apply`, which `Function.apply` calls after a search for functorch's wrappers. On the fast path there
# are none, and skipping the search saves 1 us.
_apply_drop, _apply_drop_plain, _apply_drop_, _apply_drop_add = (
    cast("Callable[..., Tensor]", cast("Any", super(torch.autograd.Function, function)).apply)
    for function in (_Drop, _DropPlain, _DropInPlace, _DropAdd)
)


def apply_same_mask(grad: Tensor, mask: Mask, strides: tuple[int, ...] | None = None) -> Tensor:
    """Drop a gradient or a tangent by the mask of the input.

    Args:
        strides: of the output, for an expanded gradient; None if the output is contiguous.
    """
    mask = mask.gradient
    if mask.params is IDENTITY:
        return grad
    if not can_use_fast_path(grad):
        return custom_op.drop(grad, mask)
    if strides is not None and 0 in grad.stride():
        grad = torch.empty_strided(grad.shape, strides, dtype=grad.dtype, device=grad.device).copy_(grad)
    return drop(grad, mask)
