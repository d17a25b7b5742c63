"""Dropout: zero single elements.

Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks from
Overfitting", JMLR 15, 2014.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dropkit.kernels.params import inverted
from dropkit.nn.dispatch import call
from dropkit.nn.layer import Counterpart, Layer
from dropkit.nn.module import DropoutModule


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Zero elements with probability `p` and scale the others by :math:`1/(1-p)`.

    .. math:: y_j = k_j\, x_j / (1 - p), \qquad k_j \sim \mathrm{Bernoulli}(1 - p)

    Args:
        input: values; float16, bfloat16, float32 or float64.
        p: expected fraction of elements dropped, in [0, 1].
        training: if false, return `input` itself.
        inplace: write the result over `input` and return that.
        generator: where the key is drawn from; torch's default generator of the input's device if None.
        key: 64 bits, an int or a 0-d int64 tensor; equal keys and shapes give equal masks. Drawn if None.

    Shape:
        input: any, output: the same. One mask element for each element.

    Raises:
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.
        RuntimeError: in place on a leaf that requires grad, or on memory that overlaps itself.

    Example:
        >>> dropout(torch.ones(6), 0.5, key=7)
        tensor([2., 2., 0., 0., 0., 2.])
        >>> x = torch.ones(3)
        >>> dropout(x, 0.5, training=False) is x
        True
    """
    return call(LAYER, input, p, training, inplace, generator, key)


class Dropout(DropoutModule, torch.nn.Dropout):
    """`dropkit.functional.dropout` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of elements dropped, in [0, 1].
        inplace: write the result over the input.

    Example:
        >>> Dropout(0.2)
        Dropout(p=0.2, inplace=False)
    """

    function = staticmethod(dropout)


LAYER = Layer(
    function=dropout,
    module=Dropout,
    make_params=inverted,
    mask_shape=None,
    example_shape=(8, 64),
    counterpart=Counterpart(torch.nn.functional.dropout, torch.nn.Dropout, operator="dropout"),
)
