"""Dropout1d: zero whole channels of sequences.

Source: Tompson, Goroshin, Jain, LeCun, Bregler, "Efficient Object Localization Using Convolutional Networks", CVPR
2015, arXiv:1411.4280 (there for two spatial dimensions, as "SpatialDropout").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from dropkit.kernels.params import inverted
from dropkit.nn.dispatch import call
from dropkit.nn.layer import Counterpart, Layer
from dropkit.nn.mask_shapes import MaskShape, per_channel, per_unbatched_channel
from dropkit.nn.module import DropoutModule


def dropout1d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Zero whole channels of sequences with probability `p` and scale the others by :math:`1/(1-p)`.

    .. math:: y_{ncl} = k_{nc}\, x_{ncl} / (1 - p), \qquad k_{nc} \sim \mathrm{Bernoulli}(1 - p)

    Dimension 1 is the channel: on a batch of shape (N, T, C), as transformers and recurrent networks have, this drops
    whole time steps.

    Args:
        input: values; float16, bfloat16, float32 or float64, or complex.
        p: expected fraction of channels dropped, in [0, 1].
        training, inplace, generator, key: as for `dropout`.

    Shape:
        input: (N, C, L) or (C, L), output: the same. One mask element for each channel of each sample.

    Raises:
        RuntimeError: `input` has neither 2 nor 3 dimensions, or cannot be written in place.
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.

    Example:
        >>> dropout1d(torch.ones(1, 4, 3), 0.5, key=7)[0, :, 0]
        tensor([2., 2., 0., 0.])
    """
    return call(LAYER, input, p, training, inplace, generator, key)


class Dropout1d(DropoutModule, torch.nn.Dropout1d):
    """`dropkit.functional.dropout1d` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of channels dropped, in [0, 1].
        inplace: write the result over the input.
    """

    _function = staticmethod(dropout1d)


def _check(input: Tensor) -> None:
    if input.dim() not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.dim()}D input. "
            "Note that dropout1d exists to provide channel-wise dropout on inputs with 1 "
            "spatial dimension, a channel dimension, and an optional batch dimension "
            "(i.e. 2D or 3D inputs)."
        )


def _mask_shape(shape: Sequence[int]) -> MaskShape:
    return per_channel(shape) if len(shape) == 3 else per_unbatched_channel(shape)


LAYER = Layer(
    function=dropout1d,
    module=Dropout1d,
    make_params=inverted,
    mask_shape=_mask_shape,
    example_shape=(8, 16, 5),
    check=_check,
    drops_channels=True,
    counterpart=Counterpart(torch.nn.functional.dropout1d, torch.nn.Dropout1d),
    where="between 1-d convolutions, whole channels; 0.1 to 0.2",
)
