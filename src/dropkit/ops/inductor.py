"""Lowerings for inductor: on the CPU, generated Python code calls dropkit's functions instead of its operators.

On GPUs, dropout is part of the kernels that inductor writes; see `ops/pointwise.py`.

A call through torch's dispatcher into Python takes some 10 us, a plain call 2; and its output is a buffer that inductor
plans and reuses, while an operator allocates its own. Inductor is imported with the first compiled function, not with
torch, so dropkit adds its lowerings when a graph is recorded.

Inductor caches the generated code on disk, where it outlives this version of dropkit: the behaviour of a function's
name in this file must never change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from dropkit import kernels
from dropkit.kernels import cpu
from dropkit.kernels.key import HIGHEST, LOWEST
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import DropoutParams, NoiseParams, ScheduledParams
from dropkit.ops import pointwise, recompute
from dropkit.torch_private import Inductor, inductor, inductor_is_loaded


def draw_v1(*_: Tensor, out: Tensor) -> None:
    """A key from the default generator, after the draws before it."""
    if recompute.may_be_checkpointed():
        out.fill_(recompute.same_key_when_recomputed(lambda: int(out.random_(LOWEST, HIGHEST)), default=True))
    else:
        out.random_(LOWEST, HIGHEST)


def drop_v1(
    input: Tensor,
    key: Tensor,
    threshold: int,
    scale: float,
    shift: float,
    fill: float,
    strides: Sequence[int] | None,
    offset: int,
    *,
    out: Tensor,
) -> None:
    """The operator of this name, which writes to `out`."""
    # By the best kernel, since code on disk may be older than the installation that runs it.
    kernels.drop(out, input, Mask(key, DropoutParams(threshold, scale, shift, fill), strides, offset))


def noise_v1(
    input: Tensor,
    key: Tensor,
    distribution: int,
    factor: float,
    term: float,
    strides: Sequence[int] | None,
    offset: int,
    *,
    out: Tensor,
) -> None:
    """The operator of this name, which writes to `out`."""
    kernels.drop(out, input, Mask(key, NoiseParams(distribution, factor, term), strides, offset))


def draw_at_v1(p: Tensor, *after: Tensor, out: Tensor) -> None:
    """A key as of `draw_v1`; if `p` holds 0 or 1 then 0, and nothing is drawn."""
    if p.item() in (0, 1):
        out.zero_()
    else:
        draw_v1(*after, out=out)


def drop_at_v1(
    input: Tensor,
    key: Tensor,
    p: Tensor,
    function: str,
    constants: bool,
    strides: Sequence[int] | None,
    offset: int,
    *,
    out: Tensor,
) -> None:
    """The operator of this name, which writes to `out`."""
    kernels.drop(out, input, Mask(key, ScheduledParams(p, function, constants).resolve(), strides, offset))


def prepare() -> None:
    """Register the lowerings if inductor is loaded; called wherever a graph is recorded."""
    if inductor_is_loaded() and (parts := inductor()) is not None:
        _register(parts)


@cache
def _register(parts: Inductor) -> None:
    V = parts.V  # noqa: N806 (its name there)

    class Call(parts.ExternKernelOut):
        """A call of one of this file's functions in generated code."""

        def __init__(self, function: Callable[..., None], layout: Any, inputs: list[Any], constants: Any = ()) -> None:
            realized = [self.realize_input(input) for input in inputs]
            name = f"dropkit_{function.__name__}"
            super().__init__(layout, realized, constants, python_kernel_name=name)
            self.line = f"from {__name__} import {function.__name__} as {name}"

        def codegen(self, wrapper: Any) -> None:
            wrapper.add_import_once(self.line)
            super().codegen(wrapper)

        def has_side_effects(self) -> bool:
            return not self.constant_args  # only a draw has none, and it advances the generator

    def layout() -> Any:
        meta = V.graph.current_node.meta["val"]
        size, stride = (parts.convert_shape(numbers) for numbers in (meta.size(), meta.stride()))
        return parts.FixedLayout(meta.device, meta.dtype, size, stride)

    def lower(operator: Any, call: Callable[..., Any], kind: Any = None) -> None:
        fallback = parts.fallback_handler(operator)

        def lowered(*arguments: Any, **named: Any) -> Any:
            device, output = layout().device.type, None
            if kind is not None and device in pointwise.DEVICES:
                output = pointwise.drop(kind, parts, *arguments)
            elif device == "cpu" and cpu.missing is None and not V.graph.cpp_wrapper and not V.graph.fx_wrapper:
                output = call(*arguments, **named)
            return fallback(*arguments, **named) if output is None else output

        parts.register_lowering(operator, type_promotion_kind=None)(lowered)

    def called(function: Callable[..., None], inputs: list[Any], constants: Any = ()) -> Any:
        return parts.TensorBox.create(Call(function, layout(), inputs, constants))

    def draw(size: Sequence[int], *, device: torch.device, p: Any = None, after: Any = None) -> Any:
        inputs = [tensor for tensor in (p, after) if tensor is not None]
        return called(draw_v1 if p is None else draw_at_v1, inputs)

    def has_batch(key: Any) -> bool:
        return len(key.get_size()) > (key.get_dtype() == torch.uint64)

    def drop(function: Callable[..., None], input: Any, key: Any, *arguments: Any) -> Any:
        return None if has_batch(key) else called(function, [input, key], arguments)

    def drop_at(input: Any, key: Any, p: Any, *arguments: Any) -> Any:
        return None if has_batch(key) else called(drop_at_v1, [input, key, p], arguments)

    lower(torch.ops.dropkit.drop_v1.default, partial(drop, drop_v1), DropoutParams)
    lower(torch.ops.dropkit.noise_v1.default, partial(drop, noise_v1), NoiseParams)
    lower(torch.ops.dropkit.drop_at_v1.default, drop_at, ScheduledParams)
    lower(torch.ops.dropkit.draw_v1.default, draw)
