"""Dropout2d: zero whole channels of images.

Source: Tompson, Goroshin, Jain, LeCun, Bregler, "Efficient Object Localization Using Convolutional Networks", CVPR
2015, arXiv:1411.4280.
"""

from __future__ import annotations

import warnings

import torch
from torch import Generator, Tensor

from dropkit.kernels.params import inverted
from dropkit.nn.checks import CALLER, warn_unless_channels
from dropkit.nn.dispatch import call
from dropkit.nn.layer import Counterpart, Layer
from dropkit.nn.mask_shapes import per_channel
from dropkit.nn.module import DropoutModule


def dropout2d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Zero whole channels of images with probability `p` and scale the others by :math:`1/(1-p)`.

    .. math:: y_{nchw} = k_{nc}\, x_{nchw} / (1 - p), \qquad k_{nc} \sim \mathrm{Bernoulli}(1 - p)

    Args:
        input: values; float16, bfloat16, float32 or float64, or complex.
        p: expected fraction of channels dropped, in [0, 1].
        training, inplace, generator, key: as for `dropout`.

    Shape:
        input: (N, C, H, W), output: the same. One mask element for each channel of each sample. As in torch, 3
        dimensions are read as (N, C, L) and any other number is accepted, both with a warning; dimensions 0 and 1 are
        then the samples and the channels.

    Raises:
        RuntimeError: `input` has fewer than 2 dimensions, or cannot be written in place.
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.

    Example:
        >>> dropout2d(torch.ones(1, 4, 2, 2), 0.5, key=7)[0, :, 0, 0]
        tensor([2., 2., 0., 0.])
    """
    return call(LAYER, input, p, training, inplace, generator, key)


class Dropout2d(DropoutModule, torch.nn.Dropout2d):
    """`dropkit.functional.dropout2d` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of channels dropped, in [0, 1].
        inplace: write the result over the input.
    """

    _function = staticmethod(dropout2d)


def _check(input: Tensor) -> None:
    warn_unless_channels(input, "dropout2d", spatial=2)
    if input.dim() == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise "
            "1D dropout behavior is desired - input is interpreted as shape (N, C, L), where C "
            "is the channel dim. This behavior will change in a future release to interpret the "
            "input as one without a batch dimension, i.e. shape (C, H, W). To maintain the 1D "
            "channel-wise dropout behavior, please switch to using dropout1d instead.",
            stacklevel=CALLER,
        )


LAYER = Layer(
    function=dropout2d,
    module=Dropout2d,
    make_params=inverted,
    mask_shape=per_channel,
    example_shape=(8, 16, 3, 3),
    check=_check,
    drops_channels=True,
    counterpart=Counterpart(torch.nn.functional.dropout2d, torch.nn.Dropout2d, operator="feature_dropout"),
    where="between convolutions over images, whole channels; 0.1 to 0.2",
)
