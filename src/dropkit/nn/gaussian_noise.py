"""GaussianNoise: add normal numbers of mean 0 to single elements in training.

Source: Bishop, "Training with Noise is Equivalent to Tikhonov Regularization", Neural Computation 7, 1995; Keras'
GaussianNoise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.overrides import has_torch_function_unary  # pyright: ignore[reportUnknownVariableType] (its stub has no types)

from dropkit.kernels.params import additive_normal
from dropkit.nn import dispatch
from dropkit.nn.by_torch import read_arguments
from dropkit.nn.checks import check_schedule, is_scheduled
from dropkit.nn.layer import Layer
from dropkit.nn.module import DropoutModule
from dropkit.nn.noise_shape import NoiseShape, checked_noise_shape, layer_of_call, takes_noise_shape


def gaussian_noise(
    input: Tensor,
    std: float = 1.0,
    training: bool = True,
    inplace: bool = False,
    *,
    noise_shape: Sequence[int | None] | None = None,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Add normal numbers of mean 0 and standard deviation `std`.

    .. math:: y_j = x_j + \sigma n_j, \qquad n_j \sim \mathcal{N}(0, 1)

    The gradient is that of the output itself.

    Args:
        input: values; float16, bfloat16, float32 or float64.
        std: standard deviation of the noise, in the unit of `input`, at least 0.
        training: if false, return `input` itself.
        noise_shape: shape of the noise, if elements share numbers; as for `dropout`.
        inplace, generator, key: as for `dropout`.

    Shape:
        input: any, output: the same. One number for each element, or for each element of `noise_shape`.

    Raises:
        ValueError: `std` is not in [0, inf), `noise_shape` does not broadcast to the shape of `input`, or both
            `generator` and `key` are given.
        TypeError: `input` is of another dtype or layout.
        RuntimeError: in place on a leaf that requires grad, or on memory that overlaps itself.

    Example:
        >>> gaussian_noise(torch.zeros(3), 0.1, key=7)
        tensor([ 0.1691,  0.0675, -0.1205])
        >>> x = torch.zeros(3)
        >>> gaussian_noise(x, 0.1, training=False) is x
        True
    """
    if has_torch_function_unary(input):
        options = {} if noise_shape is None else {"noise_shape": noise_shape}
        arguments = {"std": std, "training": training, "inplace": inplace, **options}
        return dispatch.ask_subclass(gaussian_noise, (input,), **arguments, generator=generator, key=key)
    level, training = _checked(input, std, training, inplace)
    layer = LAYER if noise_shape is None else layer_of_call(LAYER, noise_shape, input, training)
    if layer.check is not None:
        layer.check(input)
    return dispatch.drop(layer, input, level, training, inplace, generator, key)


def _checked(input: Any, std: Any, training: Any, inplace: Any) -> tuple[float | Tensor, bool]:
    """`std` as a float, or as the tensor that it is where `is_scheduled`; and `training` as a bool."""
    _, training = read_arguments(LAYER, input, 0.5, training, inplace)
    if is_scheduled(std):
        check_schedule(std)
        return std, training
    return additive_normal(float(std)).term, training


class GaussianNoise(DropoutModule):
    """`dropkit.functional.gaussian_noise` as a module: noise in training mode, the input itself in eval mode.

    It is no dropout: `dropkit.mc` leaves it off, and `dropkit.schedules` does not move it.

    Args:
        std: standard deviation of the noise, in the unit of the input, at least 0.
        inplace: write the result over the input.
        noise_shape: shape of the noise, if elements share numbers.

    Example:
        >>> GaussianNoise(0.1)
        GaussianNoise(std=0.1, inplace=False)
    """

    _function = staticmethod(gaussian_noise)

    def __init__(
        self, std: float = 1.0, inplace: bool = False, *, noise_shape: Sequence[int | None] | None = None
    ) -> None:
        torch.nn.Module.__init__(self)
        additive_normal(std)
        self.std: float = std
        self.inplace: bool = inplace
        self.noise_shape: NoiseShape | None = (
            None if noise_shape is None else checked_noise_shape(noise_shape, smallest=1)
        )

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Add noise in training mode, return `input` itself otherwise; see the functional form."""
        return gaussian_noise(
            input, self.std, self.training, self.inplace, noise_shape=self.noise_shape, generator=generator, key=key
        )

    def extra_repr(self) -> str:
        shape = "" if self.noise_shape is None else f", noise_shape={self.noise_shape}"
        return f"std={self.std}, inplace={self.inplace}{shape}"


LAYER = takes_noise_shape(
    Layer(
        function=gaussian_noise,
        module=GaussianNoise,
        make_params=additive_normal,
        mask_shape=None,
        example_shape=(8, 64),
        takes_rate=False,
        where="on standardised inputs of a network, at a standard deviation of 0.1",
    )
)
