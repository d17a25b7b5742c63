"""Dropout of complex numbers: as pairs of real numbers that share a mask element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import torch
from torch import Tensor

from dropkit.nn.layer import Layer
from dropkit.nn.mask_shapes import MaskShape
from dropkit.ops import autograd


def are_dropped_as_pairs(layer: Layer, input: Tensor) -> bool:
    """Whether `input` holds complex numbers that this layer can drop: alpha dropout, which shifts, has no such form."""
    is_plain = input.layout is torch.strided and not input.is_nested
    return is_plain and input.is_complex() and layer.takes_complex


def drop_pairs(layer: Layer, input: Tensor, inplace: bool, run: Callable[[Layer, Tensor], Tensor]) -> Tensor:
    """Drop complex numbers by `run`, which drops real ones: real and imaginary parts, along one more dimension."""
    real_layer = (_of_pairs if autograd.is_being_traced() else _cached)(layer)
    output = torch.view_as_complex(run(real_layer, torch.view_as_real(input.resolve_conj().resolve_neg())))
    if inplace and autograd.can_use_fast_path(input):
        autograd.refuse_in_place(input)  # `copy_` writes to an inference tensor before it refuses
    return input.copy_(output) if inplace else output


def _of_pairs(layer: Layer) -> Layer:
    return replace(layer, mask_shape=partial(_mask_shape, layer), check=None, counterpart=None, added_dims=1)


_cached = lru_cache(maxsize=1024)(_of_pairs)  # compilers trace no cache


def _mask_shape(layer: Layer, shape: Sequence[int]) -> MaskShape:
    """The shape of the mask of pairs, which lie along the last dimension."""
    sizes = shape[:-1]
    return (*(sizes if layer.mask_shape is None else layer.mask_shape(sizes)), 1)
