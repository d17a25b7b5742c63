"""Calls that run torch's own dropout: unsupported dtypes and layouts, torch.jit.trace, torch.export without a key.

A layer without a counterpart in torch is composed of `torch.nn.functional.dropout` on a tensor of the mask's shape, so
that every tool that knows torch's dropout knows this layer too.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from dropkit.kernels import FLOATS
from dropkit.kernels.numbers import NORMAL
from dropkit.kernels.params import NoiseParams, inverted
from dropkit.nn.checks import refuse_random_source
from dropkit.nn.complex_numbers import are_dropped_as_pairs, drop_pairs
from dropkit.nn.layer import Layer
from dropkit.ops import autograd, slices


def drop_by_torch(layer: Layer, input: Tensor, p: float | Tensor, inplace: bool) -> Tensor:
    """Run torch's function, without its warning about the rank of the input, which `Layer.check` has given."""
    slices.refuse("in torch's own dropout, which runs here,")
    if are_dropped_as_pairs(layer, input):
        return drop_pairs(layer, input, inplace, lambda of_pairs, x: drop_by_torch(of_pairs, x, p, False))
    if layer.counterpart is None:
        output = _compose(layer, input, p)
        return input.copy_(output) if inplace else output
    if autograd.is_dynamo_compiling():  # dynamo cannot trace a change of the warning filters
        return layer.counterpart.function(input, p, True, inplace)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"dropout\dd: Received")
        return layer.counterpart.function(input, p, True, inplace)


def _compose(layer: Layer, input: Tensor, p: Any) -> Tensor:
    """Compose the layer of torch's dropout of a tensor of ones: a tool that turns that off turns the layer off."""
    shape = input.shape if layer.mask_shape is None else layer.mask_shape(input.shape)
    if layer.make_params is inverted:
        mask = functional.dropout(input.new_ones(shape), p, True)
        return torch.where(mask == 0, 0.0, input * mask)
    params = layer.make_params(float(p))
    if isinstance(params, NoiseParams):
        return _add_noise(input, shape, params)
    mask = functional.dropout(input.new_ones(shape), p, True)
    return torch.where(mask == 0, params.fill, input * params.scale + params.shift)


def _add_noise(input: Tensor, shape: Sequence[int], params: NoiseParams) -> Tensor:
    """Noise by torch's random numbers, one for each mask element."""
    if input.dtype not in FLOATS or input.layout is not torch.strided:
        wanted = "a dense tensor of float16, bfloat16, float32 or float64"
        raise TypeError(f"input must be {wanted}, got {input.layout} of {input.dtype}")
    like = input.new_empty(shape)
    number = torch.randn_like(like) if params.distribution == NORMAL else torch.rand_like(like)
    return input * (number * params.factor + 1) + number * params.term


def read_arguments(layer: Layer, input: Any, p: Any, training: Any, inplace: bool) -> tuple[float, bool]:
    """Convert `p` and `training` as torch does, or raise its error for an argument of the wrong type."""
    function = functional.dropout if layer.counterpart is None else layer.counterpart.function
    if isinstance(input, Tensor):
        input = torch.empty((0,) * len(layer.example_shape))
    try:
        function(input, p, training, inplace)
    except TypeError as error:
        if layer.counterpart is not None:
            raise
        raise TypeError(str(error).replace("dropout", layer.function.__name__, 1)) from None
    return float(p), bool(training)


def drop_unsupported(
    layer: Layer, input: Tensor, p: float | Tensor, inplace: bool, generator: Generator | None, key: Tensor | int | None
) -> Tensor:
    """Run torch's dropout of integers, quantised tensors, and others, which mostly raises."""
    kind = "nested" if input.is_nested else input.layout
    refuse_random_source(generator, key, f"for {kind} tensors of {input.dtype}")
    is_plain = input.layout is torch.strided and not input.is_nested
    if layer.rate(p) == 1 and is_plain and not input.is_quantized:
        return _zeroed(input, inplace)
    # Plain inputs out of place: torch's in-place channel variants leave them reshaped when they fail.
    output = drop_by_torch(layer, input, p, inplace and not is_plain)
    return input.copy_(output) if inplace and is_plain else output


def _zeroed(input: Tensor, inplace: bool) -> Tensor:
    """Drop all elements of a tensor of integers or complex numbers."""
    if inplace and autograd.can_use_fast_path(input):
        autograd.refuse_in_place(input)
    zero = torch.zeros((), dtype=input.dtype, device=input.device)
    if not input.is_complex():
        return input.mul_(zero) if inplace else input.mul(zero)
    # torch multiplies here too, and NaN times 0 is NaN.
    output = torch.where(torch.ones_like(input, dtype=torch.bool), zero, input)
    return input.copy_(output) if inplace else output
