"""The mask of a call of a layer, made in one place for all of them."""

from __future__ import annotations

from torch import Generator, Tensor

from dropkit import random
from dropkit.kernels.mask import Mask, mask_strides
from dropkit.kernels.params import params_at
from dropkit.nn.layer import Layer


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
    strides = None
    if layer.mask_shape is not None and (isinstance(p, Tensor) or p != 1):
        strides = mask_strides(layer.mask_shape(input.shape))
    # Compilers do not trace the cache of `params_at`.
    is_cached = type(p) is float and not by_operator
    params = params_at(layer.make_params, p) if is_cached else layer.params(p)
    return Mask(random.choose_key(key, generator, input, p, by_operator), params, strides)
