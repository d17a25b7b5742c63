"""Dropout: zero single elements.

Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks from
Overfitting", JMLR 15, 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from dropkit.kernels.params import inverted
from dropkit.nn.dispatch import call
from dropkit.nn.layer import Counterpart, Layer
from dropkit.nn.noise_shape import layer_of_call, takes_noise_shape
from dropkit.nn.noise_shape_module import NoiseShapeModule


def dropout(
    input: Tensor,
    p: float | Tensor = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    noise_shape: Sequence[int | None] | None = None,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Zero elements with probability `p` and scale the others by :math:`1/(1-p)`.

    .. math:: y_j = k_j\, x_j / (1 - p), \qquad k_j \sim \mathrm{Bernoulli}(1 - p)

    Args:
        input: values; float16, bfloat16, float32 or float64, or complex. Of a sparse tensor the stored values are
            dropped, and the pattern stays.
        p: expected fraction of elements dropped, in [0, 1]; compiled code reads a 0-d tensor at each call. One on the
            GPU is read by the kernel, and nothing waits: out of range all becomes NaN, and at 0 and 1 a key is drawn.
        training: if false, return `input` itself.
        inplace: write the result over `input` and return that.
        noise_shape: shape of the mask, if elements share mask elements: one that broadcasts to the shape of `input`,
            with 1 for the dimensions along which they do, and the input's size or None for the others.
        generator: where the key is drawn from; torch's default generator of the input's device if None.
        key: 64 bits, an int or a 0-d int64 tensor, or one of torch's own keys; equal keys and shapes give equal masks.
            Drawn if None.

    Shape:
        input: any, output: the same. One mask element for each element, or for each element of `noise_shape`.

    Raises:
        ValueError: `p` is not in [0, 1], `noise_shape` does not broadcast to the shape of `input`, or both `generator`
            and `key` are given.
        RuntimeError: in place on a leaf that requires grad, or on memory that overlaps itself.
        NotImplementedError: `input` is sparse, and `noise_shape` is given, or in place and it requires grad.

    Example:
        >>> dropout(torch.ones(6), 0.5, key=7)
        tensor([2., 2., 0., 0., 0., 2.])
        >>> dropout(torch.ones(3, 4), 0.5, noise_shape=(1, None), key=7)  # the same features in each row
        tensor([[2., 2., 0., 0.],
                [2., 2., 0., 0.],
                [2., 2., 0., 0.]])
        >>> x = torch.ones(3)
        >>> dropout(x, 0.5, training=False) is x
        True
    """
    layer = LAYER if noise_shape is None else layer_of_call(LAYER, noise_shape, input, training)
    return call(layer, input, p, training, inplace, generator, key)


class Dropout(NoiseShapeModule, torch.nn.Dropout):
    """`dropkit.functional.dropout` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of elements dropped, in [0, 1].
        inplace: write the result over the input.
        noise_shape: shape of the mask, if elements share mask elements.

    Example:
        >>> Dropout(0.2)
        Dropout(p=0.2, inplace=False)
        >>> Dropout(0.2, noise_shape=(None, 1, None))
        Dropout(p=0.2, inplace=False, noise_shape=(None, 1, None))
    """

    _function = staticmethod(dropout)


# A mask element for each sample and channel, and one for each feature of a sequence.
LAYER = takes_noise_shape(
    Layer(
        function=dropout,
        module=Dropout,
        make_params=inverted,
        mask_shape=None,
        example_shape=(8, 64),
        counterpart=Counterpart(torch.nn.functional.dropout, torch.nn.Dropout, operator="dropout"),
        where="after the activation of wide linear layers, 0.2 to 0.5; on the output of transformers' sub-layers, 0.1",
    ),
    (None, None, 1),
    (None, 1, None),
)
