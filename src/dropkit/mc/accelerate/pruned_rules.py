"""Rules for functions of pruned tensors and deferred layers: layers, elementwise functions, pooling and flattening."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dropkit.mc.virtual_tensors import (
    RULES,
    WORTHWHILE_ROWS,
    DeferredLayer,
    PrunedTensor,
    VirtualTensor,
    is_inplace,
    pruned_tensor,
)
from dropkit.torch_private import no_torch_function


def defer(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], layer: int) -> Any:
    """Return a linear layer or convolution as a `DeferredLayer`, or NotImplemented if it must run now."""
    arguments = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs)
    source, weight, bias = arguments.pop("input"), arguments.pop("weight"), arguments.pop("bias", None)
    rest = tuple(args[3:]), arguments
    is_linear = func is F.linear
    with no_torch_function():
        shape, groups = source.shape, rest[1].get("groups", rest[0][3] if len(rest[0]) > 3 else 1)
        dim = len(shape) - 1 if is_linear else 1
        rows = shape.numel() // max(shape[dim], 1) if shape else 0
        if source.is_inference():
            return NotImplemented  # writes to it are not counted
        if rows < WORTHWHILE_ROWS or weight.dim() < 2:
            return NotImplemented
        if not is_linear and (groups != 1 or len(shape) != weight.dim()):
            return NotImplemented
        if torch.is_autocast_enabled(weight.device.type):
            return NotImplemented  # the dtype of the output is not that of the weight
        source_kept = None
        if isinstance(source, PrunedTensor) and source.full is None and source.pruned_dim == dim:
            # Read now, since a later function may change the pruned tensor in place.
            source, source_kept = source.slices, (source.kept_indices, source.scale)
        elif isinstance(source, VirtualTensor):
            source = source.materialize()
    size = (*shape[:-1], weight.shape[0]) if is_linear else _conv_shape(func, shape, weight, rest)
    output: DeferredLayer = VirtualTensor.create(DeferredLayer, size, weight)
    output.func, output.source, output.source_kept, output.weight, output.bias = func, source, source_kept, weight, bias
    output.rest, output.pruned_dim, output.then, output.layer = rest, dim, (), layer
    output.write_counts = output.current_write_counts()
    return output


def _conv_shape(func: Any, shape: Sequence[int], weight: Tensor, rest: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    like = torch.empty(tuple(shape), device="meta", dtype=weight.dtype)
    return func(like, weight.to("meta"), None, *rest[0], **rest[1]).shape


def _elementwise(keeps_zero: bool, is_homogeneous: bool = False) -> Callable[..., Any]:
    """Make the rule of an elementwise function; pruned tensors need one with f(0) = 0."""

    def rule(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        input, rest = args[0], args[1:]
        has_others = any(isinstance(value, Tensor) for value in (*rest, *kwargs.values()))
        if not isinstance(input, VirtualTensor) or input.full is not None or has_others:
            return NotImplemented
        inplace = is_inplace(func, kwargs)
        if isinstance(input, DeferredLayer):
            output = input if inplace else _copy(input)

            def then(values: Tensor) -> Tensor:
                return func(values, *rest, **kwargs)

            # ReLU can always run in place: only this layer has its output.
            output.then = (*input.then, torch.relu_ if func in _RELU else then)
            return output
        if not isinstance(input, PrunedTensor) or not keeps_zero:
            return NotImplemented
        if is_homogeneous or input.scale == 1:
            slices, scale = func(input.slices, *rest, **kwargs), input.scale
        else:
            scaled = input.slices.mul_(input.scale) if inplace else input.scaled()
            slices, scale = func(scaled, *rest, **kwargs), 1.0
        if inplace:
            input.slices, input.scale = slices, scale
            return input
        with no_torch_function():
            return pruned_tensor(slices, input.kept_indices, input.pruned_dim, scale, input.shape)

    return rule


def _copy(layer: DeferredLayer) -> DeferredLayer:
    with no_torch_function():
        copy: DeferredLayer = VirtualTensor.create(DeferredLayer, layer.shape, layer.weight)
    for name, value in vars(layer).items():
        setattr(copy, name, value)
    return copy


def _pool(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Pool the kept channels: each is pooled by itself, and a channel of zeros stays zero."""
    input = args[0]
    if not isinstance(input, PrunedTensor) or input.full is not None or input.pruned_dim != 1:
        return NotImplemented
    # Without a batch dimension, the channels are dimension 0.
    if input.slices.dim() != _POOLS[func]:
        return NotImplemented
    slices = func(input.slices, *args[1:], **kwargs)
    if not isinstance(slices, Tensor):
        return NotImplemented
    with no_torch_function():
        shape = (*input.shape[:2], *slices.shape[2:])
    return pruned_tensor(slices, input.kept_indices, 1, input.scale, shape)


def _flatten(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Flatten the kept channels and their positions into one dimension."""
    input = args[0]
    if not isinstance(input, PrunedTensor) or input.full is not None or input.pruned_dim != 1:
        return NotImplemented
    with no_torch_function():
        shape = input.shape
        size = func(torch.empty(shape, device="meta"), *args[1:], **kwargs).shape
    positions = shape[2:].numel()
    if tuple(size) != (shape[0], shape[1] * positions):
        return NotImplemented
    first = input.kept_indices[:, None] * positions
    kept = (first + torch.arange(positions, device=first.device)).flatten()
    view = pruned_tensor(input.slices.flatten(1), kept, 1, input.scale, size)
    input.is_aliased = view.is_aliased = True
    return view


_RELU = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
# f(0) = 0.
_KEEPING_ZERO = (
    F.gelu, F.silu, F.elu, F.elu_, F.selu, F.selu_, F.celu, F.celu_, F.mish, F.relu6, F.hardswish, F.softsign,
    F.tanhshrink, F.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_, torch.selu, torch.celu,
)  # fmt: skip
# f(c x) = c f(x) for c > 0.
_HOMOGENEOUS = (*_RELU, F.leaky_relu, F.leaky_relu_, torch.abs, Tensor.abs)
_MOVING_ZERO = (F.sigmoid, torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, F.softplus, F.hardsigmoid)
# By function: the number of dimensions of its batched input.
_POOLS = {
    torch.max_pool1d: 3, F.max_pool1d: 3, F.avg_pool1d: 3,
    torch.max_pool2d: 4, F.max_pool2d: 4, F.avg_pool2d: 4, F.adaptive_avg_pool2d: 4,
}  # fmt: skip
_FLATTENING = (torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape)

RULES.update(
    {
        **dict.fromkeys(_KEEPING_ZERO, _elementwise(keeps_zero=True)),
        **dict.fromkeys(_HOMOGENEOUS, _elementwise(keeps_zero=True, is_homogeneous=True)),
        **dict.fromkeys(_MOVING_ZERO, _elementwise(keeps_zero=False)),
        **dict.fromkeys(_POOLS, _pool),
        **dict.fromkeys(_FLATTENING, _flatten),
    }
)
