"""Random numbers that follow from a key as masks do: in compiled code, under vmap, and as part of a split tensor."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.overrides import has_torch_function_unary  # pyright: ignore[reportUnknownVariableType] (its stub has no types)

from dropkit.kernels.params import MakeParams, additive_normal, uniform_number
from dropkit.nn import dispatch
from dropkit.nn.layer import Layer


def uniform(like: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
    """Uniform numbers in (0, 1), one for each element of `like`, 0 and 1 excluded.

    A number is the middle of an interval of 2**-23, or for float64 of 2**-32.

    Args:
        like: a tensor of the shape, dtype and device of the result; float32 or float64. Its values are not read.
        generator: where the key is drawn from; torch's default generator of the device if None.
        key: 64 bits, an int or a 0-d int64 tensor, or one of torch's own keys; equal keys and shapes give equal
            numbers. Drawn if None.

    Returns:
        Tensor of the shape of `like`, without a gradient.

    Raises:
        TypeError: `like` is of another dtype.
        ValueError: both `generator` and `key` are given.

    Example:
        >>> from dropkit.nn.random_numbers import uniform
        >>> uniform(torch.empty(3), key=7)
        tensor([0.9546, 0.7502, 0.1142])
    """
    if has_torch_function_unary(like):
        return dispatch.ask_subclass(uniform, (like,), generator=generator, key=key)
    return _numbers(_UNIFORM, like, generator, key)


def normal(like: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
    """Normal numbers of mean 0 and variance 1, one for each element of `like`; in [-6.34, 6.34].

    The arguments, the result and the errors are those of `uniform`.

    Example:
        >>> from dropkit.nn.random_numbers import normal
        >>> normal(torch.empty(3), key=7)
        tensor([ 1.6912,  0.6750, -1.2046])
    """
    if has_torch_function_unary(like):
        return dispatch.ask_subclass(normal, (like,), generator=generator, key=key)
    return _numbers(_NORMAL, like, generator, key)


def _numbers(layer: Layer, like: Tensor, generator: Generator | None, key: Tensor | int | None) -> Tensor:
    if like.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"like must be of float32 or float64, got {like.dtype}")
    zeros = torch.zeros_like(like, memory_format=torch.contiguous_format)
    return dispatch.drop(layer, zeros, 1.0, True, False, generator, key)


def _layer(make_params: MakeParams) -> Layer:
    return Layer(uniform, torch.nn.Identity, make_params, mask_shape=None, example_shape=(8, 64), takes_rate=False)


_UNIFORM, _NORMAL = _layer(uniform_number), _layer(additive_normal)
