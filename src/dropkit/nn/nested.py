"""Dropout of nested tensors: batches of tensors whose sizes differ, of layout `torch.jagged` or `torch.strided`.

Mask elements are numbered from component to component: where elements share none, the mask index of an element is its
position when all components, each flattened in row-major order, are laid end to end; in channel dropout it is
`sample * C + channel`. So the mask follows from the key and the sizes of the components, wherever these lie in memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor

from dropkit import random
from dropkit.kernels.mask import Mask, mask_strides
from dropkit.nn.layer import Layer
from dropkit.ops import autograd, custom_op, slices
from dropkit.torch_private import max_length, min_length, nested_sizes, ragged_dim

# From a dense tensor, the strides of its mask and the first mask index to the tensor after dropout.
Run = Callable[[Tensor, "Sequence[int] | None", int], Tensor]


def drop(
    layer: Layer,
    input: Tensor,
    p: float | Tensor,
    inplace: bool,
    generator: Generator | None,
    key: Tensor | int | None,
) -> Tensor:
    """Run a layer on a nested input, at a rate that is not 0.

    Raises:
        RuntimeError: a layer that drops channels, and dimension 1 does not hold them or varies in size; or in place,
            and torch forbids the write.
    """
    slices.refuse("for nested tensors")
    if layer.drops_channels:
        _refuse_unless_channels(layer, input)
    by_operator = isinstance(p, Tensor) or autograd.is_being_traced()
    mask = Mask(random.choose_key(key, generator, input, layer.rate(p), by_operator), layer.params(p))

    def run(dense: Tensor, strides: Sequence[int] | None, offset: int) -> Tensor:
        fast = not isinstance(p, Tensor) and autograd.can_use_fast_path(dense)
        return (autograd if fast else custom_op).drop(dense, mask._replace(strides=strides, offset=offset))

    # torch keeps nested tensors for backward for their sizes, and would refuse once they are written.
    source = input.clone() if inplace and input.requires_grad and torch.is_grad_enabled() else input
    output = (_jagged if input.layout is torch.jagged else _strided)(layer, source, run)
    return input.copy_(output) if inplace else output


def _jagged(layer: Layer, input: Any, run: Run) -> Tensor:
    """The output has the same offsets and lengths, so the same ragged size: torch adds only tensors that share one.

    The gaps between components, where there are `lengths`, are copied.
    """
    values, offsets, lengths, ragged = input.values(), input.offsets(), input.lengths(), ragged_dim(input)
    if ragged == 1 and lengths is None and layer.mask_shape is None:
        output = run(values, None, 0)  # the components already lie end to end
    else:
        # `split`, as the gradient of `narrow` is as large as all components together.
        pieces = list(values.split(_split_sizes(values.shape[ragged - 1], offsets, lengths), ragged - 1))
        pieces[1::2] = _drop_each(layer, pieces[1::2], run)
        output = torch.cat(pieces, ragged - 1)
        if not values.is_contiguous():
            output = torch.empty_like(values).copy_(output)
    return torch.nested.nested_tensor_from_jagged(
        output, offsets, lengths, ragged, min_length(input), max_length(input)
    )


def _split_sizes(size: int, offsets: Tensor, lengths: Tensor | None) -> list[int]:
    """Sizes along the ragged dimension: of the gap before a component, of that component, ..., of what is left."""
    starts = cast("list[int]", offsets.tolist())
    ends = starts[1:] if lengths is None else cast("list[int]", (offsets[:-1] + lengths).tolist())
    edges = [0, *itertools.chain.from_iterable(zip(starts, ends, strict=False)), size]
    return [after - before for before, after in itertools.pairwise(edges)]


def _strided(layer: Layer, input: Tensor, run: Run) -> Tensor:
    return torch.nested.as_nested_tensor(_drop_each(layer, input.unbind(), run), layout=torch.strided)


def _drop_each(layer: Layer, components: Iterable[Tensor], run: Run) -> list[Tensor]:
    dropped: list[Tensor] = []
    offset = 0
    for component in components:
        if layer.mask_shape is None:
            dropped.append(run(component, None, offset))
            offset += component.numel()
        else:
            shape = layer.mask_shape((1, *component.shape))[1:]
            dropped.append(run(component, mask_strides(shape), offset))
            offset += math.prod(shape)
    return dropped


def _refuse_unless_channels(layer: Layer, input: Tensor) -> None:
    """Dimension 0 is always the batch, so a layer must read dimension 1 as the channels, of one size for all."""
    name, wanted = layer.function.__name__, len(layer.example_shape)
    if cast("Any", layer.mask_shape)((2,) * input.dim())[:2] != (2, 2):
        raise RuntimeError(
            f"{name}: input must have {wanted} dimensions where it is nested, the batch, the channels and {wanted - 2} "
            f"more, got {input.dim()}; use dropout or alpha_dropout to drop single elements"
        )
    sizes = _sizes(input)
    if sizes[1] is None:
        shape = ", ".join("*" if size is None else str(size) for size in sizes)
        raise RuntimeError(
            f"{name}: input must have the same number of channels, dimension 1, in all samples, got ({shape}), where "
            "whole positions would be dropped; use dropout or alpha_dropout to drop single elements, or move the "
            "channels to dimension 1 with input.transpose"
        )


def _sizes(input: Any) -> list[int | None]:
    """Sizes of a nested tensor; None for one that differs between components."""
    if input.layout is torch.jagged:
        return [None if dim == ragged_dim(input) else input.size(dim) for dim in range(input.dim())]
    shapes = cast("list[list[int]]", nested_sizes(input).tolist())
    distinct = [set(sizes) for sizes in zip(*shapes, strict=True)]
    return [input.size(0), *(sizes.pop() if len(sizes) == 1 else None for sizes in distinct)]
