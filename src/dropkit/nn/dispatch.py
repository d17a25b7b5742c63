"""Run a layer: check the arguments, then drop on the fast path, by dropkit's operators or by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Generator, Tensor
from torch.overrides import (
    handle_torch_function,
    has_torch_function_unary,  # pyright: ignore[reportUnknownVariableType] (its stub has no types)
)

from dropkit import random
from dropkit.kernels import FLOATS
from dropkit.nn import nested, sparse, torchscript
from dropkit.nn.by_torch import drop_by_torch, drop_unsupported, read_arguments
from dropkit.nn.checks import check_probability, check_schedule, is_scheduled, refuse_random_source
from dropkit.nn.complex_numbers import are_dropped_as_pairs, drop_pairs
from dropkit.nn.draw_mask import draw_mask
from dropkit.nn.layer import Layer
from dropkit.ops import autograd, custom_op, dtensor, slices, transforms
from dropkit.torch_private import FakeTensor, fake_mode, tracing_state


def call(
    layer: Layer,
    input: Tensor,
    p: float | Tensor,
    training: bool,
    inplace: bool,
    generator: Generator | None,
    key: Tensor | int | None,
) -> Tensor:
    """Run the functional form of a layer, from its arguments to its result."""
    if has_torch_function_unary(input):
        named = {"p": p, "training": training, "inplace": inplace, **layer.options}
        return ask_subclass(layer.function, (input,), **named, generator=generator, key=key)
    # Exact types, which most calls have, need no conversion.
    are_exact = type(p) is float and 0.0 <= p <= 1.0 and type(training) is bool and isinstance(input, Tensor)
    by_operator = not are_exact and is_scheduled(p)
    if not are_exact:
        (check_schedule if by_operator else check_probability)(p)
    if layer.check is not None:
        layer.check(input)
    if not are_exact and not (by_operator and type(training) is bool and isinstance(input, Tensor)):
        rate, training = read_arguments(layer, input, 0.5 if by_operator else p, training, inplace)
        p = p if by_operator else rate
    return drop(layer, input, p, training, inplace, generator, key)


def drop(
    layer: Layer,
    input: Tensor,
    p: float | Tensor,
    training: bool,
    inplace: bool,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    """Run a layer on checked arguments, as one of torch's operators does."""
    if key is not None:
        key = random.check_key(key, generator, input)
    # What most calls are. Without this branch the rest of the function would do the same, and take longer over it.
    if (
        training
        and not inplace
        and type(p) is float
        and 0.0 < p < 1.0
        and (key is None or type(key) is int)
        and autograd.is_plain(input)
    ):
        return autograd.drop_plain(input, draw_mask(layer, input, p, generator, key))
    # The exact type first, which is faster than `isinstance` alone.
    has_tensor = type(p) is not float and isinstance(p, Tensor)
    if not training or (not has_tensor and p == 0):
        return input
    takes_fast_path = autograd.can_use_fast_path(input)
    if not takes_fast_path and tracing_state() is not None:
        return torchscript.drop_traced(layer, input, p, inplace, generator, key)
    if not takes_fast_path and autograd.is_being_exported() and key is None and not has_tensor:
        # torch's dropout, which all readers of exported programs know; under `install` it runs dropkit's kernel.
        refuse_random_source(generator, None, "under torch.export", "; pass key=")
        return drop_by_torch(layer, input, p, inplace)
    if not takes_fast_path and type(input) is FakeTensor and fake_mode() is None:
        with input.fake_mode:  # where keys are no real tensors either
            return drop(layer, input, p, training, inplace, generator, custom_op.as_fake(key, input))
    if (input.numel() == 0 if takes_fast_path else _is_empty(input)) and slices.is_empty(input):
        return input
    if input.dtype not in FLOATS or input.layout is not torch.strided or input.is_nested:
        if are_dropped_as_pairs(layer, input):
            return drop_pairs(
                layer, input, inplace, lambda of_pairs, x: drop(of_pairs, x, p, True, False, generator, key)
            )
        if sparse.is_sparse(input):
            return sparse.drop(
                layer, input, inplace, lambda values: drop(layer, values, p, True, False, generator, key)
            )
        unusual = nested.drop if input.dtype in FLOATS and input.is_nested else drop_unsupported
        return unusual(layer, input, p, inplace, generator, key)
    if has_tensor or not takes_fast_path:
        return _drop_by_operator(layer, input, p, inplace, generator, key)
    mask = draw_mask(layer, input, p, generator, key)
    return (autograd.drop_ if inplace else autograd.drop)(input, mask)


def _drop_by_operator(
    layer: Layer, input: Tensor, p: float | Tensor, inplace: bool, generator: Generator | None, key: Tensor | int | None
) -> Tensor:
    """Drop by the registered operators, which compilers, transforms and modes see."""
    custom_op.refuse_meta("p", p, input)
    has_parts = dtensor.has_memory(input)
    if has_parts and key is None and (isinstance(p, Tensor) or layer.rate(p) != 1):
        dtensor.agree_on_generator(input, generator)
    is_fast = has_parts and not isinstance(p, Tensor) and dtensor.can_use_fast_path(input)
    mask = draw_mask(layer, input, p, generator, key, by_operator=not is_fast)
    if has_parts:
        dtensor.check_key(input, mask)
    output = (dtensor if is_fast else transforms).drop(input, mask)
    return input.copy_(output) if inplace else output


def ask_subclass(
    function: Callable[..., Any], tensors: tuple[Tensor, ...], *, generator: Any, key: Any, **arguments: Any
) -> Any:
    """Hand a call to the `__torch_function__` of a subclass or mode, as torch's functions do.

    Args:
        function: what was called.
        tensors: arguments that may be subclasses; the first is `input`, the others are in `arguments`, too.
        generator, key: handed on only if they are given, since torch's functions have no such arguments.
    """
    given = {name: value for name, value in (("generator", generator), ("key", key)) if value is not None}
    return handle_torch_function(function, tensors, tensors[0], **arguments, **given)


def _is_empty(input: Tensor) -> bool:
    # Before torch 2.13 `is_compiling` is false inside an operator that a compiler runs, but the size is symbolic.
    if not torch.compiler.is_compiling() and type(input.numel()) is int:
        return input.numel() == 0
    # A size that is known only when the graph runs is assumed not to be 0.
    # Not imported above, which would load sympy, 0.3 s; where a size is symbolic, torch has loaded it.
    symbolic_shapes: Any = cast("Any", torch.fx).experimental.symbolic_shapes
    return symbolic_shapes.guard_or_false(input.numel() == 0)
