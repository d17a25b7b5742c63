"""WordDropout: replace single tokens by that of an unknown word.

Source: Bowman, Vilnis, Vinyals, Dai, Jozefowicz, Bengio, "Generating Sentences from a Continuous Space", CoNLL 2016,
arXiv:1511.06349, section 3.1; Iyyer, Manjunatha, Boyd-Graber, Daumé, "Deep Unordered Composition Rivals Syntactic
Methods for Text Classification", ACL 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from dropkit.nn.checks import check_probability, checked_rate
from dropkit.nn.composed_layer import ComposedLayer
from dropkit.nn.dropout import dropout
from dropkit.nn.dynamic_rate import DynamicRate


def word_dropout(
    input: Tensor,
    unknown: int,
    p: float = 0.1,
    training: bool = True,
    *,
    kept: Sequence[int] = (),
    generator: Generator | None = None,
    key: Tensor | int | None = None,
) -> Tensor:
    """Replace tokens by `unknown` with probability `p`, each occurrence by itself.

    Args:
        input: indices of words; any integer dtype.
        unknown: what a dropped token becomes.
        p: expected fraction of tokens dropped, of those that are not in `kept`, in [0, 1].
        training: if false, return `input` itself.
        kept: tokens that are never dropped, such as padding and the ends of sentences.
        generator, key: as for `dropout`.

    Shape:
        input: any, output: the same. One mask element for each token.

    Raises:
        ValueError: `p` is not in [0, 1], or both `generator` and `key` are given.
        TypeError: `input` does not hold integers.

    Example:
        >>> word_dropout(torch.arange(10, 16), 0, 0.5, key=7)
        tensor([10, 11,  0,  0,  0, 15])
    """
    if input.is_floating_point() or input.is_complex() or input.dtype == torch.bool:
        raise TypeError(f"input must be indices of words, of an integer dtype, got {input.dtype}")
    ones = torch.ones(input.shape, device=input.device)
    mask = dropout(ones, checked_rate(p), training, generator=generator, key=key)
    if mask is ones:
        return input
    dropped = mask == 0
    for token in kept:
        dropped = dropped & (input != token)
    return input.masked_fill(dropped, unknown)


class WordDropout(DynamicRate):
    """`dropkit.functional.word_dropout` as a module: drop in training mode, return the input itself in eval mode.

    Args:
        unknown: what a dropped token becomes.
        p: expected fraction of tokens dropped, in [0, 1].
        kept: tokens that are never dropped.

    Example:
        >>> WordDropout(unknown=3, p=0.1, kept=(0, 1, 2))
        WordDropout(unknown=3, p=0.1, kept=(0, 1, 2))
    """

    _function = staticmethod(word_dropout)

    def __init__(self, unknown: int, p: float = 0.1, *, kept: Sequence[int] = ()) -> None:
        super().__init__()
        check_probability(p)
        self.unknown: int = unknown
        self.p: float = p
        self.kept: tuple[int, ...] = tuple(kept)

    def forward(self, input: Tensor, *, generator: Generator | None = None, key: Tensor | int | None = None) -> Tensor:
        """Drop tokens in training mode, return `input` itself otherwise; see the functional form."""
        return word_dropout(input, self.unknown, self.rate, self.training, kept=self.kept, generator=generator, key=key)

    def extra_repr(self) -> str:
        return f"unknown={self.unknown}, p={self.p}" + (f", kept={self.kept}" if self.kept else "")


LAYER = ComposedLayer(
    module=WordDropout,
    function=word_dropout,
    inputs=lambda dtype: (torch.arange(1, 257).view(8, 32),),
    dropped=lambda output, module: output == 0,
    arguments={"unknown": 0},
    where="on the tokens of a text, before the embedding; 0.1 to 0.3",
)
