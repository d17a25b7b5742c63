"""Dropout3d: zero whole channels of volumes.

Source: Tompson, Goroshin, Jain, LeCun, Bregler, "Efficient Object Localization Using Convolutional Networks", CVPR
2015, arXiv:1411.4280 (there for two spatial dimensions, as "SpatialDropout").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from dropkit.kernels.params import inverted
from dropkit.nn.checks import warn_unless_channels
from dropkit.nn.dispatch import call
from dropkit.nn.layer import Counterpart, Layer
from dropkit.nn.mask_shapes import MaskShape, per_channel, per_unbatched_channel
from dropkit.nn.module import DropoutModule


def dropout3d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Zero whole channels of volumes with probability `p` and scale the others by :math:`1/(1-p)`.

    .. math:: y_{ncdhw} = k_{nc}\, x_{ncdhw} / (1 - p), \qquad k_{nc} \sim \mathrm{Bernoulli}(1 - p)

    Args:
        input: values; float16, bfloat16, float32 or float64, or complex.
        p: expected fraction of channels dropped, in [0, 1].
        training, inplace, generator, key: as for `dropout`.

    Shape:
        input: (N, C, D, H, W) or (C, D, H, W), output: the same. One mask element for each channel of each sample. As
        in torch, any other number of dimensions is accepted, with a warning; dimension 0 is then the channels.

    Raises:
        RuntimeError: `input` is 0-d, or cannot be written in place.
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.

    Example:
        >>> dropout3d(torch.ones(1, 4, 2, 2, 2), 0.5, key=7)[0, :, 0, 0, 0]
        tensor([2., 2., 0., 0.])
    """
    return call(LAYER, input, p, training, inplace, generator, key)


class Dropout3d(DropoutModule, torch.nn.Dropout3d):
    """`dropkit.functional.dropout3d` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of channels dropped, in [0, 1].
        inplace: write the result over the input.
    """

    _function = staticmethod(dropout3d)


def _check(input: Tensor) -> None:
    warn_unless_channels(input, "dropout3d", spatial=3)


def _mask_shape(shape: Sequence[int]) -> MaskShape:
    return per_channel(shape) if len(shape) == 5 else per_unbatched_channel(shape)


LAYER = Layer(
    function=dropout3d,
    module=Dropout3d,
    make_params=inverted,
    mask_shape=_mask_shape,
    example_shape=(8, 16, 2, 2, 2),
    check=_check,
    drops_channels=True,
    counterpart=Counterpart(torch.nn.functional.dropout3d, torch.nn.Dropout3d),
    where="between convolutions over volumes, whole channels; 0.1 to 0.2",
)
