"""The short way: ordinary tensors in eager mode go straight to the kernel.

Gradients come from ctx-style `torch.autograd.Function`s; the `setup_context` style, which torch.func needs, costs 14 us
more a call. Nothing is saved for backward but the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dropkit import kernels
from dropkit.kernels.values import Values

_dispatch_keys = torch._C._dispatch_keys
_modes = torch._C._len_torch_dispatch_stack
_transform = torch._C._functorch.peek_interpreter_stack
_tracing = torch._C._get_tracing_state

# Dispatch keys of an ordinary tensor, on any backend (the low 16 bits). Any other key means that something wants to see
# the operator: a subclass, a transform, a lazy negation, a quantised or sparse or nested layout.
_ORDINARY = ~(_dispatch_keys(torch.empty(0, device="cpu")).raw_repr() | 0xFFFF)


def serves(input: Tensor) -> bool:
    """Whether `input` is an ordinary tensor that nothing stands between it and its memory."""
    return (
        not torch.compiler.is_compiling()
        and not _dispatch_keys(input).raw_repr() & _ORDINARY
        and not _modes()
        and _transform() is None
        and _tracing() is None
    )


def drop(input: Tensor, key: Tensor | int, values: Values, steps: Sequence[int] | None = None, base: int = 0) -> Tensor:
    """Dropout by `values` with the coins of `key`, out of place.

    The element at some coordinates uses coin `base + sum(coordinate * step)`; `steps` None means one coin an element in
    row-major order.
    """
    if _differentiates(input):
        return _Drop.apply(input, key, values, steps, base)  # pyright: ignore[reportUnknownMemberType]
    output = torch.empty_like(input)
    kernels.drop(output, input, key, values, steps, base)
    return output


def drop_(input: Tensor, key: Tensor | int, values: Values, steps: Sequence[int] | None = None, base: int = 0) -> Tensor:
    """`drop` in place. Whatever is wrong is raised before anything is written."""
    _refuse_in_place(input)
    if _differentiates(input):
        input = _DropInPlace.apply(input, key, values, steps, base)
    elif not input.is_inference():
        torch.autograd.graph.increment_version(input)
    kernels.drop(input, input, key, values, steps, base)
    return input


def _differentiates(input: Tensor) -> bool:
    return (input.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0


def _refuse_in_place(input: Tensor) -> None:
    if any(step == 0 and size > 1 for step, size in zip(input.stride(), input.shape, strict=True)):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )
    if input.is_inference() and not torch.is_inference_mode_enabled():
        # torch's own words, from an operation on none of the elements.
        input.new_empty(0).set_(input.untyped_storage(), 0, (0,)).zero_()


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, key: Any, values: Values, steps: Any, base: int) -> Tensor:
        ctx.coins = key, values.gradient, steps, base
        output = torch.empty_like(input)
        # An expanded gradient has no layout of its own: it takes the output's, as in torch.
        ctx.strides = None if output.is_contiguous() else output.stride()
        kernels.drop(output, input, key, values, steps, base)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _again(grads[0], ctx.coins, ctx.strides), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _again(tangents[0], ctx.coins, None)


class _DropInPlace(torch.autograd.Function):
    """The graph alone. The caller writes once autograd has raised no objection, so that a refusal leaves no trace."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, key: Any, values: Values, steps: Any, base: int) -> Tensor:
        ctx.coins = key, values.gradient, steps, base
        ctx.mark_dirty(input)
        return input

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _again(grads[0], ctx.coins, None), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return tangents[0].copy_(_again(tangents[0], ctx.coins, None))


def _again(grad: Tensor, coins: tuple[Any, Values, Any, int], strides: tuple[int, ...] | None) -> Tensor:
    """The same coins on a gradient or a tangent, wherever that lives by now."""
    from dropkit.ops import general

    if not serves(grad):
        return general.drop(grad, *coins)
    if strides is not None and 0 in grad.stride():
        grad = torch.empty_strided(grad.shape, strides, dtype=grad.dtype, device=grad.device).copy_(grad)
    return drop(grad, *coins)
