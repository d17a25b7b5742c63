"""The short way: ordinary tensors in eager mode go straight to the kernel.

Gradients come from ctx-style `torch.autograd.Function`s; the `setup_context` style, which torch.func needs, costs 14 us
more a call. Nothing is saved for backward but the key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from dropkit import kernels
from dropkit.kernels.params import DropoutParams
from dropkit.ops import custom_op
from dropkit.torch_private import (
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

Coins = tuple["Tensor | int", DropoutParams, "Sequence[int] | None", int]


_TYPES = (Tensor, torch.nn.Parameter)


def serves(input: Tensor) -> bool:
    """Whether nothing stands between `input` and its memory, and nothing wants to see the operator.

    Not a subclass, mode, transform or tracer, nor a tensor that is lazily negated, zero or batched.
    """
    # `watched`, without a call.
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


def watched() -> bool:
    """Whether a compiler, transform, mode or tracer wants to see the operators that run, whatever their input."""
    return (
        is_dynamo_compiling()
        or functorch_interpreter() is not None
        or bool(count_dispatch_modes())
        or tracing_state() is not None
    )


def exporting() -> bool:
    """Whether a program for other tools is recorded: by torch.export, or decomposed, or compiled ahead of time."""
    if is_dynamo_compiling():
        return is_exporting()
    return bool(count_dispatch_modes()) and (is_exporting() or is_functionalized_for_export())


def drop(
    input: Tensor, key: Tensor | int, values: DropoutParams, steps: Sequence[int] | None = None, base: int = 0
) -> Tensor:
    """Dropout by `values` with the coins of `key`, out of place.

    The element at some coordinates uses coin `base + sum(coordinate * step)`; `steps` None means one coin an element in
    row-major order. Backward reads the key again: nobody may write it any more, see `own`.
    """
    if (input.requires_grad and torch.is_grad_enabled()) or in_forward_mode():
        return _apply_drop(input, (key, values, steps, base))
    output = torch.empty_like(input)
    kernels.drop(output, input, key, values, steps, base)
    return output


def drop_(
    input: Tensor, key: Tensor | int, values: DropoutParams, steps: Sequence[int] | None = None, base: int = 0
) -> Tensor:
    """`drop` in place. Whatever torch forbids is raised before anything is written."""
    refuse_in_place(input)
    if in_forward_mode():
        # A Function would have to write the tangent in place too, which torch cannot tell of a batched one.
        return input.copy_(drop(input, key, values, steps, base))
    if input.requires_grad and torch.is_grad_enabled():
        input = _apply_drop_(input, (key, values, steps, base))
    elif not input.is_inference():
        torch.autograd.graph.increment_version(input)
    kernels.drop(input, input, key, values, steps, base)
    return input


def drop_add(input: Tensor, residual: Tensor, key: Tensor | int, values: DropoutParams) -> Tensor:
    """`residual + drop(input, key, values)` in one walk, equal to it to the bit; the two of one shape and dtype."""
    wanted = (input.requires_grad or residual.requires_grad) and torch.is_grad_enabled()
    if wanted or in_forward_mode():
        return _apply_drop_add(input, residual, (key, values, None, 0))
    return _added(input, residual, (key, values, None, 0))


def _added(input: Tensor, residual: Tensor, coins: Coins) -> Tensor:
    output = torch.empty_like(input)
    kernels.drop(output, input, *coins, residual)
    return output


def own(key: Tensor | int) -> Tensor | int:
    """A key that a caller gave, as it is now: backward must not see what the caller does to the tensor later."""
    if not isinstance(key, Tensor):
        return key
    return int(key) if key.is_cpu else key.clone()


def refuse_in_place(input: Tensor) -> None:
    """Raise what torch would for a write to `input` that it forbids, before anything is written."""
    if input.requires_grad and torch.is_grad_enabled() and not may_be_written(input):
        input.mul_(1)  # torch's own words
    if any(step == 0 and size > 1 for step, size in zip(input.stride(), input.shape, strict=True)):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )
    if input.is_inference() and not torch.is_inference_mode_enabled():
        # torch's own words, from an operation on none of the elements.
        input.as_strided((0,), (1,)).zero_()


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, coins: Coins) -> Tensor:
        output = torch.empty_like(input)
        kernels.drop(output, input, *coins)
        # An expanded gradient has no layout of its own: it takes the output's.
        ctx.saved = coins, None if output.is_contiguous() else output.stride()
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _again(grads[0], *ctx.saved), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _again(tangents[0], *ctx.saved)


class _DropInPlace(torch.autograd.Function):
    """The graph alone. The caller writes once autograd has raised no objection, so that a refusal leaves no trace."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, coins: Coins) -> Tensor:
        ctx.coins = coins
        ctx.mark_dirty(input)
        return input

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _again(grads[0], ctx.coins, None), None


class _DropAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, residual: Tensor, coins: Coins) -> Tensor:
        output = _added(input, residual, coins)
        ctx.saved = coins, None if output.is_contiguous() else output.stride()
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _again(grads[0], *ctx.saved) if ctx.needs_input_grad[0] else None, grads[0], None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        of_input, of_residual, _ = tangents
        return _again(of_input, *ctx.saved) + of_residual


# What `Function.apply` calls once it has looked for functorch's wrappers, of which `serves` finds none: 1 us less.
_apply_drop, _apply_drop_ = (
    cast("Callable[[Tensor, Coins], Tensor]", cast("Any", super(torch.autograd.Function, function)).apply)
    for function in (_Drop, _DropInPlace)
)
_apply_drop_add = cast(
    "Callable[[Tensor, Tensor, Coins], Tensor]", cast("Any", super(torch.autograd.Function, _DropAdd)).apply
)


def _again(grad: Tensor, coins: Coins, strides: tuple[int, ...] | None) -> Tensor:
    """The same coins on a gradient or a tangent, wherever that lives by now."""
    key, values, steps, base = coins
    values = values.gradient
    if not serves(grad):
        return custom_op.drop(grad, key, values, steps, base)
    if strides is not None and 0 in grad.stride():
        grad = torch.empty_strided(grad.shape, strides, dtype=grad.dtype, device=grad.device).copy_(grad)
    return drop(grad, key, values, steps, base)
