"""DropHead: drop whole attention heads, one mask element per sample and head.

Source: Zhou, Ge, Wei, Xu, "Scheduled DropHead: A Regularization Method for Transformer Models", 2020, arXiv:2004.13342
(there the kept heads are scaled by the number of heads over the number kept, which is 0 / 0 where none is).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Generator, Tensor

from dropkit.kernels.params import inverted
from dropkit.nn.dispatch import call
from dropkit.nn.layer import Layer
from dropkit.nn.mask_shapes import MaskShape
from dropkit.nn.module import DropoutModule
from dropkit.torch_private import TorchDropout


def drop_head(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    head_dim: int = 1,
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    r"""Zero whole attention heads with probability `p` and scale the others by :math:`1/(1-p)`.

    .. math:: y_{nh} = k_{nh}\, x_{nh} / (1 - p), \qquad k_{nh} \sim \mathrm{Bernoulli}(1 - p)

    It goes on the output of attention, before the heads are joined: `drop_head(attention(q, k, v), p)`. The scale is
    the same whatever number of heads is kept, so that the expectation of the output is the input.

    Args:
        input: the output of each head; float16, bfloat16, float32 or float64, or complex.
        p: expected fraction of heads dropped, in [0, 1].
        head_dim: dimension of the heads, not that of the batch, 0; it may be negative.
        training, inplace, generator, key: as for `dropout`.

    Shape:
        input: (N, H, L, E), or (N, L, H, E) with `head_dim=2`, or any other; output: the same. One mask element for
        each of the N samples and H heads.

    Raises:
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.
        RuntimeError: `head_dim` is no dimension of `input`, or that of the batch; or in place, and torch
            forbids the write.

    Example:
        >>> drop_head(torch.ones(2, 3, 1, 2), 0.5, key=7).squeeze(2)
        tensor([[[2., 2.],
                 [2., 2.],
                 [0., 0.]],
        <BLANKLINE>
                [[0., 0.],
                 [0., 0.],
                 [2., 2.]]])
    """
    return call(_choose(head_dim), input, p, training, inplace, generator, key)


class DropHead(DropoutModule, TorchDropout):
    """`dropkit.functional.drop_head` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        p: expected fraction of heads dropped, in [0, 1].
        inplace: write the result over the input.
        head_dim: dimension of the heads.

    Example:
        >>> DropHead(0.2)
        DropHead(p=0.2, inplace=False)
        >>> DropHead(0.2, head_dim=2)
        DropHead(p=0.2, inplace=False, head_dim=2)
    """

    _function = staticmethod(drop_head)

    def __init__(self, p: float = 0.5, inplace: bool = False, *, head_dim: int = 1) -> None:
        super().__init__(p, inplace)
        self.head_dim = head_dim

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Drop in training mode, return `input` itself otherwise; see the functional form."""
        p = self.p if self._rate_in_graphs is None else self.rate
        return drop_head(input, p, self.training, self.inplace, head_dim=self.head_dim, generator=generator, key=key)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.head_dim == 1 else f", head_dim={self.head_dim}")


def _choose(head_dim: int = 1) -> Layer:
    return LAYER if head_dim == 1 else _with_head_dim(head_dim)


def _with_head_dim(head_dim: int) -> Layer:
    return replace(
        _HEADS_FIRST,
        mask_shape=partial(_per_head, head_dim=head_dim),
        example_shape=(8, 3, 4, 2),
        options={"head_dim": head_dim},
    )


def _per_head(shape: Sequence[int], head_dim: int = 1) -> MaskShape:
    heads = head_dim + len(shape) if head_dim < 0 else head_dim
    if not 0 < heads < len(shape):
        raise RuntimeError(
            f"head_dim must be a dimension of the input after the batch, of shape {tuple(shape)}, got {head_dim}"
        )
    return tuple(size if dim in (0, heads) else 1 for dim, size in enumerate(shape))


_HEADS_FIRST = Layer(
    function=drop_head,
    module=DropHead,
    make_params=inverted,
    mask_shape=_per_head,
    example_shape=(8, 4, 3, 2),
    drops_channels=True,
    where="on the output of attention, before the heads are joined, 0.1 to 0.2",
)
LAYER = replace(_HEADS_FIRST, variants=(_with_head_dim(2), _with_head_dim(-1)), choose=_choose)
