"""Zoneout: let units of a recurrent state keep their previous value.

Source: Krueger, Maharaj, Kramár, Pezeshki, Ballas, Ke, Goyal, Bengio, Courville, Pal, "Zoneout: Regularizing RNNs by
Randomly Preserving Hidden Activations", ICLR 2017, arXiv:1606.01305.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from dropkit.nn.checks import check_probability, checked_rate
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.dropout import dropout
from dropkit.nn.dynamic_rate import DynamicRate


def zoneout(
    previous: Tensor,
    current: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Return `previous` for units chosen with probability `p`, and `current` for the others, bit by bit.

    .. math:: h_t = d_t \odot h_{t-1} + (1 - d_t) \odot \tilde h_t, \qquad d_t \sim \mathrm{Bernoulli}(p)

    Args:
        previous: the state before this step; of the shape and dtype of `current`.
        current: the state that the cell computed in this step.
        p: expected fraction of units that keep their previous value, in [0, 1].
        training: if false, return the expectation, `p * previous + (1 - p) * current`.
        generator, key: as for `dropout`. A unit has the mask element of an elementwise dropout of `current`.

    Shape:
        previous, current: any, the same; output: the same.

    Raises:
        ValueError: `p` is not in [0, 1], shapes differ, or both `generator` and `key` are given.

    Example:
        >>> zoneout(torch.zeros(6), torch.ones(6), 0.5, key=7)
        tensor([1., 1., 0., 0., 0., 1.])
        >>> zoneout(torch.zeros(2), torch.ones(2), 0.25, training=False)
        tensor([0.7500, 0.7500])
    """
    if previous.shape != current.shape:
        shapes = f"{tuple(current.shape)}, got {tuple(previous.shape)}"
        raise ValueError(f"previous must be of the shape of current, {shapes}")
    rate = checked_rate(p)
    ones = torch.ones_like(current)
    mask = dropout(ones, rate, training, generator=generator, key=key)
    if mask is not ones:
        return torch.where(mask.bool(), current, previous)
    return current if training or rate == 0 else torch.lerp(current, previous, rate)


class Zoneout(DynamicRate):
    """`dropkit.functional.zoneout` as a module, for the state of any recurrent cell.

    Args:
        p: expected fraction of units that keep their previous value, in [0, 1].

    Example:
        >>> cell, zoneout = torch.nn.GRUCell(8, 16), Zoneout(0.1)
        >>> state = torch.zeros(4, 16)
        >>> for input in torch.randn(10, 4, 8):
        ...     state = zoneout(state, cell(input, state))
    """

    _function = staticmethod(zoneout)

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_probability(p)
        self.p = p

    def forward(
        self, previous: Tensor, current: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None
    ) -> Tensor:
        """Keep previous values in training mode, return the expectation in eval mode; see the functional form."""
        return zoneout(previous, current, self.rate, self.training, generator=generator, key=key)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _example(dtype: torch.dtype) -> tuple[Tensor, ...]:
    return torch.zeros(8, 32, dtype=dtype), torch.ones(8, 32, dtype=dtype)


LAYER = ComposedLayer(
    module=Zoneout,
    function=zoneout,
    inputs=_example,
    dropped=lambda output, module: output == 0,
    is_plain_in_eval=False,
    where="on the states of a recurrent cell, 0.05 on hidden states, 0.5 on the memory cells of an LSTM",
)
