"""What a coin does to an element, in numbers: when it drops, and what kept and dropped values become."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

# SELU's negative saturation value, scale * alpha.
# Source: Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing Neural Networks", 2017, arXiv:1706.02515.
SATURATION = 1.7580993408473766


class DropoutParams(NamedTuple):
    """A coin whose word is at least `threshold` keeps its elements.

    A kept `x` becomes `x * scale + shift`, a dropped one becomes `fill`. Each number is rounded once to the arithmetic
    type of the call (float32 for the 16-bit types and float32, float64 for float64), and so is each operation. A tuple,
    because the compiled kernel reads it as it stands.
    """

    threshold: int  # in [0, 2**32]; at 2**32 every coin drops
    scale: float
    shift: float
    fill: float

    @property
    def gradient(self) -> DropoutParams:
        """The derivative: the same coins, without the constants."""
        return DropoutParams(self.threshold, self.scale, 0.0, 0.0) if self.shift or self.fill else self


Rule = Callable[[float], DropoutParams]


def threshold(p: float) -> int:
    """The word below which a coin drops with probability `p`, exact to the last of 32 bits."""
    return round(p * 2**32)


def inverted(p: float) -> DropoutParams:
    """Inverted dropout: kept values grow by 1 / (1 - p), so that the mean stays and nothing is left to do in eval.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks
    from Overfitting", JMLR 15, 2014, section 10 (the scaling in training instead of in eval).
    """
    return DropoutParams(threshold(p), 1 / (1 - p) if p < 1 else 0.0, 0.0, 0.0)


def alpha(p: float) -> DropoutParams:
    """Alpha dropout: dropped values become SELU's saturation, and an affine map restores mean 0 and variance 1.

    At p = 1 everything becomes 0, as in torch.

    Source: Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing Neural Networks", 2017, arXiv:1706.02515.
    """
    if p == 1:
        return DropoutParams(threshold(p), 0.0, 0.0, 0.0)
    scale = 1 / math.sqrt((SATURATION * SATURATION * p + 1) * (1 - p))
    shift = SATURATION * scale * p
    return DropoutParams(threshold(p), scale, shift, shift - SATURATION * scale)


# By the name that operators carry in their arguments.
RULES: dict[str, Rule] = {rule.__name__: rule for rule in (inverted, alpha)}
