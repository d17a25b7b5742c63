"""AlphaDropout: saturate single elements so that self-normalising networks keep their mean and variance.

Source: Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing Neural Networks", 2017, arXiv:1706.02515.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dropkit.kernels.params import alpha
from dropkit.nn.dispatch import call
from dropkit.nn.layer import Counterpart, Layer
from dropkit.nn.module import DropoutModule


def alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Set elements to SELU's negative saturation with probability `p`, then restore mean 0 and variance 1.

    .. math:: y_j = a\,(k_j x_j + (1 - k_j)\,\alpha') + b, \qquad k_j \sim \mathrm{Bernoulli}(1 - p)

    with :math:`\alpha' = -1.7581`, :math:`a = ((1 - p)(1 + p\,\alpha'^2))^{-1/2}` and :math:`b = -a\,p\,\alpha'`.

    Args:
        input: values; float16, bfloat16, float32 or float64.
        p: expected fraction of elements dropped, in [0, 1]; at 1 the result is 0, as in torch.
        training: if false, return `input` itself. Note the default: as in torch, it is false.
        inplace, generator, key: as for `dropout`.

    Shape:
        input: any, output: the same. One mask element for each element.

    Raises:
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.
        RuntimeError: in place on a leaf that requires grad, or on memory that overlaps itself.

    Example:
        >>> alpha_dropout(torch.zeros(4), 0.5, training=True, key=7)
        tensor([ 0.7792,  0.7792, -0.7792, -0.7792])
    """
    return call(LAYER, input, p, training, inplace, generator, key)


class AlphaDropout(DropoutModule, torch.nn.AlphaDropout):
    """`dropkit.functional.alpha_dropout` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of elements dropped, in [0, 1].
        inplace: write the result over the input (torch's module ignores this).
    """

    _function = staticmethod(alpha_dropout)


LAYER = Layer(
    function=alpha_dropout,
    module=AlphaDropout,
    make_params=alpha,
    mask_shape=None,
    example_shape=(8, 64),
    counterpart=Counterpart(torch.nn.functional.alpha_dropout, torch.nn.AlphaDropout, operator="alpha_dropout"),
    where="in networks with SELU, 0.05 to 0.1",
)
