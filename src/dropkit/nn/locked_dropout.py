"""LockedDropout: zero the same features at all time steps of a sequence.

Source: Gal, Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks", NeurIPS 2016,
arXiv:1512.05287; the name is that of Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", 2017,
arXiv:1708.02182.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Generator, Tensor

from dropkit.kernels.params import inverted
from dropkit.nn.dispatch import call
from dropkit.nn.layer import Layer
from dropkit.nn.mask_shapes import MaskShape
from dropkit.nn.module import DropoutModule
from dropkit.torch_private import TorchDropout


def locked_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    batch_first: bool = False,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Zero features with probability `p`, at all time steps or none, and scale the others by :math:`1/(1-p)`.

    .. math:: y_{tnj} = k_{nj}\, x_{tnj} / (1 - p), \qquad k_{nj} \sim \mathrm{Bernoulli}(1 - p)

    Args:
        input: values; float16, bfloat16, float32 or float64, or complex.
        p: expected fraction of features dropped, in [0, 1].
        batch_first: whether dimension 0 is the batch and dimension 1 the time, as for torch's recurrent layers.
        training, inplace, generator, key: as for `dropout`.

    Shape:
        input: (L, N, *), or (N, L, *) if `batch_first`; output: the same. One mask element for each sample and feature.
        An input without a batch, (L, *), works where `batch_first` is false.

    Raises:
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.
        RuntimeError: `input` has fewer than 2 dimensions, or cannot be written in place.

    Example:
        >>> locked_dropout(torch.ones(3, 1, 6), 0.5, key=7)[:, 0]  # a row for each time step
        tensor([[2., 2., 0., 0., 0., 2.],
                [2., 2., 0., 0., 0., 2.],
                [2., 2., 0., 0., 0., 2.]])
    """
    return call(_choose(batch_first), input, p, training, inplace, generator, key)


class LockedDropout(DropoutModule, TorchDropout):
    """`dropkit.functional.locked_dropout` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of features dropped, in [0, 1].
        inplace: write the result over the input.
        batch_first: whether inputs are (N, L, *) rather than (L, N, *).
    """

    _function = staticmethod(locked_dropout)

    def __init__(self, p: float = 0.5, inplace: bool = False, *, batch_first: bool = False) -> None:
        super().__init__(p, inplace)
        self.batch_first = batch_first

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Drop in training mode, return `input` itself otherwise; see the functional form."""
        return locked_dropout(
            input, self.rate, self.training, self.inplace, batch_first=self.batch_first, generator=generator, key=key
        )

    def extra_repr(self) -> str:
        return super().extra_repr() + (", batch_first=True" if self.batch_first else "")


def _choose(batch_first: bool = False) -> Layer:
    return _BATCH_FIRST if batch_first else LAYER


def _time_first(shape: Sequence[int]) -> MaskShape:
    _check(shape)
    return (1, *shape[1:])


def _batch_first(shape: Sequence[int]) -> MaskShape:
    _check(shape)
    return (shape[0], 1, *shape[2:])


def _check(shape: Sequence[int]) -> None:
    if len(shape) < 2:
        raise RuntimeError(f"input must have at least 2 dimensions, time and features, got {len(shape)}")


_BATCH_FIRST = Layer(
    function=locked_dropout,
    module=LockedDropout,
    make_params=inverted,
    mask_shape=_batch_first,
    example_shape=(8, 3, 32),
    options={"batch_first": True},
)
LAYER = replace(
    _BATCH_FIRST,
    mask_shape=_time_first,
    example_shape=(8, 16, 64),
    options={},
    variants=(_BATCH_FIRST,),
    choose=_choose,
    where="on inputs and outputs of recurrent layers, 0.4 to 0.65",
)
