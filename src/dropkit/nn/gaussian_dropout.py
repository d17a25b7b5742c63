"""GaussianDropout: multiply single elements by normal numbers of mean 1, with the variance of dropout at the same rate.

Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks from
Overfitting", JMLR 15, 2014, section 10; the rate of Keras' GaussianDropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Generator, Tensor

from dropkit.kernels.params import gaussian
from dropkit.nn.dispatch import call
from dropkit.nn.layer import Layer
from dropkit.nn.noise_shape import layer_of_call, takes_noise_shape
from dropkit.nn.noise_shape_module import NoiseShapeModule
from dropkit.torch_private import TorchDropout


def gaussian_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    noise_shape: Sequence[int | None] | None = None,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Multiply elements by normal numbers of mean 1 and variance :math:`p/(1-p)`, which that of `dropout` is, too.

    .. math:: y_j = x_j\, (1 + \sigma n_j), \qquad n_j \sim \mathcal{N}(0, 1), \quad \sigma = \sqrt{p / (1 - p)}

    No element becomes exactly 0; from p = 0.2 on many change sign, at p = 0.5 16 % of them.

    Args:
        input: values; float16, bfloat16, float32 or float64.
        p: rate of the dropout whose variance the factors have, in [0, 1).
        noise_shape: shape of the factors, if elements share them; as for `dropout`.
        training, inplace, generator, key: as for `dropout`.

    Shape:
        input: any, output: the same. One factor for each element, or for each element of `noise_shape`.

    Raises:
        ValueError: `p` is not in [0, 1), `noise_shape` does not broadcast to the shape of `input`, or both `generator`
            and `key` are given.
        TypeError: `input` is of another dtype or layout.
        RuntimeError: in place on a leaf that requires grad, or on memory that overlaps itself.

    Example:
        >>> gaussian_dropout(torch.ones(3), 0.5, key=7)
        tensor([ 2.6912,  1.6750, -0.2046])
        >>> x = torch.ones(3)
        >>> gaussian_dropout(x, 0.5, training=False) is x
        True
    """
    _check_finite(p)
    layer = LAYER if noise_shape is None else layer_of_call(LAYER, noise_shape, input, training)
    return call(layer, input, p, training, inplace, generator, key)


class GaussianDropout(NoiseShapeModule, TorchDropout):
    """`dropkit.functional.gaussian_dropout` as a module: noise in training mode, the input itself in eval mode.

    Args:
        p: rate of the dropout whose variance the factors have, in [0, 1).
        inplace: write the result over the input.
        noise_shape: shape of the factors, if elements share them.

    Example:
        >>> GaussianDropout(0.2)
        GaussianDropout(p=0.2, inplace=False)
    """

    _function = staticmethod(gaussian_dropout)

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, noise_shape: Sequence[int | None] | None = None
    ) -> None:
        super().__init__(p, inplace, noise_shape=noise_shape)
        _check_finite(p)


def _check_finite(p: Any) -> None:
    """Refuse p = 1 also where nothing is drawn; `call` refuses what is no rate."""
    if not isinstance(p, Tensor) and p == 1:
        gaussian(p)


LAYER = takes_noise_shape(
    Layer(
        function=gaussian_dropout,
        module=GaussianDropout,
        make_params=gaussian,
        mask_shape=None,
        example_shape=(8, 64),
        where="in place of dropout after activations, at the same rates, 0.2 to 0.5",
    )
)
