"""FeatureAlphaDropout: saturate whole channels so that self-normalising networks keep their mean and variance.

Source: Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing Neural Networks", 2017, arXiv:1706.02515; Tompson,
Goroshin, Jain, LeCun, Bregler, "Efficient Object Localization Using Convolutional Networks", 2015, arXiv:1411.4280.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dropkit.kernels.params import alpha
from dropkit.nn.dispatch import call
from dropkit.nn.layer import Counterpart, Layer
from dropkit.nn.mask_shapes import per_channel
from dropkit.nn.module import DropoutModule


def feature_alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Set whole channels to SELU's negative saturation with probability `p`, then restore mean 0 and variance 1.

    The values are those of `alpha_dropout`, the mask is that of `dropout2d`.

    Args:
        input: values; float16, bfloat16, float32 or float64.
        p: expected fraction of channels dropped, in [0, 1]; at 1 the result is 0, as in torch.
        training: if false, return `input` itself. Note the default: as in torch, it is false.
        inplace, generator, key: as for `dropout`.

    Shape:
        input: (N, C, *), output: the same. One mask element for each channel of each sample.

    Raises:
        RuntimeError: `input` has fewer than 2 dimensions, or cannot be written in place.
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.

    Example:
        >>> feature_alpha_dropout(torch.zeros(1, 4, 2), 0.5, training=True, key=7)[0, :, 0]
        tensor([ 0.7792,  0.7792, -0.7792, -0.7792])
    """
    return call(LAYER, input, p, training, inplace, generator, key)


class FeatureAlphaDropout(DropoutModule, torch.nn.FeatureAlphaDropout):
    """`dropkit.functional.feature_alpha_dropout` as a module: drop in training mode, return the input in eval mode.

    Args:
        p: expected fraction of channels dropped, in [0, 1].
        inplace: write the result over the input (torch's module ignores this).
    """

    _function = staticmethod(feature_alpha_dropout)


LAYER = Layer(
    function=feature_alpha_dropout,
    module=FeatureAlphaDropout,
    make_params=alpha,
    mask_shape=per_channel,
    example_shape=(8, 16, 3, 3),
    drops_channels=True,
    counterpart=Counterpart(
        torch.nn.functional.feature_alpha_dropout, torch.nn.FeatureAlphaDropout, operator="feature_alpha_dropout"
    ),
    where="between convolutions with SELU, whole channels; 0.05 to 0.1",
)
