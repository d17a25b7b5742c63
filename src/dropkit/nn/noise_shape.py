"""noise_shape: a shape that broadcasts to the input's and says along which dimensions elements share a mask element.

Keras and Flax have it, as `keras.layers.Dropout(noise_shape)` and `flax.linen.Dropout(broadcast_dims)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import has_torch_function_unary  # pyright: ignore[reportUnknownVariableType] (its stub has no types)

from dropkit.arguments import check
from dropkit.nn.layer import Layer
from dropkit.nn.mask_shapes import MaskShape
from dropkit.ops import autograd
from dropkit.torch_private import tracing_state

NoiseShape = tuple["int | None", ...]


def with_noise_shape(layer: Layer, noise_shape: Sequence[int | None]) -> Layer:
    """The record of an elementwise layer whose mask has this shape; the same one for equal shapes in eager mode.

    Raises:
        ValueError: `noise_shape` is no sequence of sizes. Whether they fit an input is checked by the record.
    """
    entries = checked_noise_shape(noise_shape)
    if autograd.is_being_traced():  # compilers trace no cache, and have sizes that are not hashable
        return _with_entries(layer, *entries)
    return _cached(layer, *entries)


def layer_of_call(layer: Layer, noise_shape: Sequence[int | None], input: Tensor, training: bool) -> Layer:
    """The record that a call of an elementwise layer with this mask shape runs."""
    if has_torch_function_unary(input):
        # The subclass or mode gets the argument itself, which may hold a tracer's placeholders for sizes.
        return replace(layer, options={"noise_shape": noise_shape})
    shaped = with_noise_shape(layer, noise_shape)
    # Where nothing drops, sizes need not fit: a model may be evaluated with batches of another size.
    return shaped if training else layer


def takes_noise_shape(layer: Layer, *examples: NoiseShape) -> Layer:
    """The record of an elementwise layer whose function takes `noise_shape`.

    Args:
        examples: mask shapes of three dimensions, for variants; one for each feature of a sequence if none are given.
    """

    def choose(noise_shape: Sequence[int | None] | None = None) -> Layer:
        return record if noise_shape is None else with_noise_shape(record, noise_shape)

    shapes = examples or ((None, 1, None),)
    variants = tuple(replace(with_noise_shape(layer, shape), example_shape=(8, 16, 3)) for shape in shapes)
    record = replace(layer, variants=variants, choose=choose)
    return record


def checked_noise_shape(noise_shape: Any, smallest: int = 0) -> NoiseShape:
    """The entries of `noise_shape`, None or integers of at least `smallest`.

    Raises:
        ValueError: it is anything else.
    """
    given: Any = noise_shape
    is_sequence = isinstance(given, (tuple, list))
    entries = cast("Sequence[Any]", given) if is_sequence else ()
    if tracing_state() is not None:  # where sizes are tensors
        entries = [int(entry) if isinstance(entry, Tensor) else entry for entry in entries]
    holds = is_sequence and all(entry is None or (_is_size(entry) and entry >= smallest) for entry in entries)
    check("noise_shape", holds, "a tuple of sizes, each 1, that of the input, or None", cast("object", noise_shape))
    return tuple(entries)


def _is_size(entry: Any) -> bool:
    return isinstance(entry, (int, torch.SymInt, Integral)) and not isinstance(entry, bool)


def _with_entries(layer: Layer, *entries: int | None) -> Layer:
    return replace(
        layer,
        mask_shape=partial(mask_shape, entries),
        check=partial(_check_fits, entries),
        counterpart=None,
        options={"noise_shape": entries},
        variants=(),
        choose=None,
    )


_cached = lru_cache(maxsize=1024)(_with_entries)


def mask_shape(noise_shape: NoiseShape, shape: Sequence[int]) -> MaskShape:
    """The shape of the mask of an input of this shape: 1 where `noise_shape`, aligned to the right, is 1 or ends.

    Any other entry stands for the size of the input, whatever that is: the whole input may be larger than the part of
    it that `noise_shape` was checked against.
    """
    shared = len(shape) - len(noise_shape)
    if shared < 0:
        raise _does_not_fit(noise_shape, shape)
    sizes = zip(noise_shape, shape[shared:], strict=True)
    return (1,) * shared + tuple(1 if entry == 1 else size for entry, size in sizes)


def _check_fits(noise_shape: NoiseShape, input: Tensor) -> None:
    if not isinstance(input, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] (refused later, as by torch)
        return
    if input.is_nested:
        raise NotImplementedError(f"noise_shape must be None where the input is nested, got {noise_shape}")
    pairs = zip(reversed(noise_shape), reversed(input.shape), strict=False)
    fits = all(entry is None or entry == 1 or entry == size for entry, size in pairs)
    if not fits or len(noise_shape) > input.dim():
        raise _does_not_fit(noise_shape, input.shape)


def _does_not_fit(noise_shape: NoiseShape, shape: Sequence[int]) -> ValueError:
    return ValueError(f"noise_shape must be a shape that broadcasts to the input's, {tuple(shape)}, got {noise_shape}")
