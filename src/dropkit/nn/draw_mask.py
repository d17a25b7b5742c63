"""The mask of a call of a layer, made in one place for all of them."""

from __future__ import annotations

from torch import Generator, Tensor
from torch.compiler import is_dynamo_compiling

from dropkit import random
from dropkit.kernels.mask import Mask, mask_strides, row_major
from dropkit.kernels.params import params_at
from dropkit.nn.layer import Layer
from dropkit.ops import recompute, slices


def draw_mask(
    layer: Layer,
    input: Tensor,
    p: float | Tensor,
    generator: Generator | None,
    key: Tensor | int | None,
    by_operator: bool = False,
) -> Mask:
    """The mask of one call on checked arguments, under the given key or a new one.

    Args:
        p: rate of the call, not 0; a tensor if it is read when an operator runs.
        by_operator: whether the call goes through dropkit's registered operators; see `random.choose_key`.
    """
    # The strides come first: `mask_shape` refuses inputs of the wrong rank, for which no key must be drawn.
    strides, offset = None, 0
    if slices.is_used and slices.state.parts:
        draws_from = "" if key is not None else "default" if generator is None else "generator"
        strides, offset = _place(layer, input, draws_from)
    elif layer.mask_shape is not None and (isinstance(p, Tensor) or layer.rate(p) != 1):
        strides = mask_strides(layer.mask_shape(input.shape))
    # Compilers do not trace the cache of `params_at`.
    is_cached = type(p) is float and not by_operator
    params = params_at(layer.make_params, p) if is_cached else layer.params(p)
    return Mask(random.choose_key(key, generator, input, layer.rate(p), by_operator), params, strides, offset)


def _place(layer: Layer, input: Tensor, draws_from: str) -> tuple[tuple[int, ...] | None, int]:
    """The strides and the first index of the mask of `input` within the mask of the whole that it is a part of."""
    if not is_dynamo_compiling() and recompute.may_be_checkpointed():
        recompute.keep_slices()
    whole = slices.whole_of(input, draws_from, layer.added_dims)
    if layer.mask_shape is not None:
        strides = mask_strides(layer.mask_shape(whole.shape))
    elif whole.shape[1:] == list(input.shape[1:]):
        # The strides of the input, which kernels walk fastest.
        strides = None
    else:
        strides = row_major(whole.shape)
    along = row_major(whole.shape) if strides is None else strides
    return strides, whole.offset + sum(start * stride for start, stride in zip(whole.starts, along, strict=True))
