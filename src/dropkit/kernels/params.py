"""The parameters of a mask: when a mask element drops and what elements become, or how its random number is used.

The functions of a rate compute on floats, on tensors, and on the numbers of a kernel that inductor writes, and Triton
compiles them, too (`kernels/gpu/rates.py`): each formula stands here alone, and its bits are the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.kernels.numbers import NORMAL, UNIFORM

# SELU's negative saturation value, scale * alpha.
# Source: Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing Neural Networks", 2017, arXiv:1706.02515.
SATURATION = 1.7580993408473766


class DropoutParams(NamedTuple):
    """A mask element is kept if its random word is at least `threshold`.

    A kept `x` becomes `x * scale + shift`, a dropped one becomes `fill`. Each number is rounded once to the arithmetic
    type of the call (float32 for the 16-bit types and float32, float64 for float64), and so is each operation. A tuple,
    because the compiled kernel reads its items by position.
    """

    threshold: int  # in [0, 2**32]; at 2**32 every mask element drops
    scale: float
    shift: float
    fill: float

    @property
    def drops_all(self) -> bool:
        """Whether no random word keeps an element; the threshold does not fit 32 bits then."""
        return self.threshold >> 32 != 0

    @property
    def gradient(self) -> DropoutParams:
        """The derivative: the same threshold and scale, without the constants."""
        return DropoutParams(self.threshold, self.scale, 0.0, 0.0) if self.shift or self.fill else self

    def resolve(self) -> DropoutParams:
        """The numbers themselves."""
        return self


class NoiseParams(NamedTuple):
    """A mask element has a random number `n`, and an `x` that uses it becomes `x * (1 + factor * n) + term * n`.

    Roundings are those of `DropoutParams`, and it is a tuple for the same reason.
    """

    distribution: int  # of the numbers: NORMAL or UNIFORM of `kernels/numbers.py`
    factor: float
    term: float

    @property
    def drops_all(self) -> bool:
        """Nothing is dropped."""
        return False

    @property
    def gradient(self) -> NoiseParams | DropoutParams:
        """The derivative: the same factor without the term, or 1."""
        return self._replace(term=0.0) if self.factor else IDENTITY

    def resolve(self) -> NoiseParams:
        """The numbers themselves."""
        return self


# What leaves every element as it is.
IDENTITY = DropoutParams(0, 1.0, 0.0, 0.0)


class ScheduledParams(NamedTuple):
    """The parameters at a rate that is read when the operator runs, so that a compiled graph works for every rate.

    Attributes:
        p: 0-d tensor. A GPU's kernel reads one on its device, see `kernels/gpu/rates.py`; `resolve` waits for it.
        function: name of the function in `PARAMS_BY_NAME` that makes numbers of the rate.
        constants: false for the gradient, which has neither shift nor fill.
    """

    p: Tensor
    function: str
    constants: bool = True

    @property
    def form(self) -> DropoutParams | NoiseParams:
        """The parameters at rate 1/2, which have the constants that all rates have."""
        return self.at(0.5)

    @property
    def gradient(self) -> ScheduledParams | DropoutParams:
        """The derivative: the same threshold and scale, without the constants; or 1."""
        gradient = self._replace(constants=False)
        return IDENTITY if gradient.form is IDENTITY else gradient

    def resolve(self) -> DropoutParams | NoiseParams:
        """The numbers at the rate that `p` holds now; raises ValueError if that is out of range."""
        p = self.p.item()
        if not 0 <= p <= 1 and self.function != additive_normal.__name__:  # which has no rate, and checks its number
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        return self.at(p)

    def at(self, p: float) -> DropoutParams | NoiseParams:
        """The numbers at another rate."""
        params = PARAMS_BY_NAME[self.function](p)
        return params if self.constants else params.gradient


Params: TypeAlias = "DropoutParams | NoiseParams | ScheduledParams"
MakeParams = Callable[[float], "DropoutParams | NoiseParams"]


def threshold(p: float) -> int:
    """The random word below which a mask element drops with probability `p`, exact to the last of 32 bits."""
    # To the nearest integer, ties to even, as every sum of doubles is rounded at this size.
    return _integer((p * 2.0**32 + 2.0**52) - 2.0**52)


def is_valid(p: float, function: str) -> bool:
    """Whether the function of this name takes `p`."""
    if function == "additive_normal":
        is_below_end = p < math.inf
    elif function == "gaussian":
        is_below_end = p < 1
    else:
        is_below_end = p <= 1
    return (p >= 0) & is_below_end


def unscaled(p: float) -> DropoutParams:
    """Dropout without scaling. It turns ones into the mask itself: 1 where kept, 0 where dropped."""
    return DropoutParams(threshold(p), 1.0, 0.0, 0.0)


def inverted(p: float) -> DropoutParams:
    """Inverted dropout: kept values grow by 1 / (1 - p), so that the mean stays and eval mode needs no scaling.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks
    from Overfitting", JMLR 15, 2014, section 10 (scaling in training instead of in eval mode).
    """
    return DropoutParams(threshold(p), 1 / _where(p < 1, 1.0 - p, math.inf), 0.0, 0.0)


def alpha(p: float) -> DropoutParams:
    """Alpha dropout: dropped values become SELU's saturation, and an affine map restores mean 0 and variance 1.

    At p = 1 everything becomes 0, as in torch.

    Source: Klambauer, Unterthiner, Mayr, Hochreiter, "Self-Normalizing Neural Networks", 2017, arXiv:1706.02515.
    """
    scale = 1 / _sqrt(_where(p < 1, (SATURATION * SATURATION * p + 1) * (1.0 - p), math.inf))
    shift = SATURATION * scale * p
    return DropoutParams(threshold(p), scale, shift, shift - SATURATION * scale)


def gaussian(p: float) -> NoiseParams:
    """Gaussian dropout: multiply by normal numbers of mean 1 and the variance of inverted dropout, p / (1 - p).

    Raises:
        ValueError: `p` is not in [0, 1).

    Source: as for `inverted`, section 10.
    """
    check("p", is_valid(p, "gaussian"), "in [0, 1), since the variance p / (1 - p) must be finite", p)
    return NoiseParams(NORMAL, _sqrt(p / (1.0 - p)), 0.0)


def additive_normal(std: float) -> NoiseParams:
    """Add normal numbers of mean 0 and this standard deviation.

    Raises:
        ValueError: `std` is not in [0, inf).
    """
    check("std", is_valid(std, "additive_normal"), "in [0, inf)", std)
    return NoiseParams(NORMAL, 0.0, std)


def uniform_number(_: float) -> NoiseParams:
    """Add the uniform number in (0, 1) itself, which zeros become."""
    return NoiseParams(UNIFORM, 0.0, 1.0)


def _where(condition: bool, x: float, y: float) -> float:
    return (x if condition else y) if isinstance(x, float) else cast("Any", torch).where(condition, x, y)


def _sqrt(x: float) -> float:
    return math.sqrt(x) if isinstance(x, float) else cast("Any", torch).sqrt(x)


def _integer(x: float) -> int:
    return int(x) if isinstance(x, float) else cast("Any", x).to(torch.int64)


@lru_cache(maxsize=1024)
def params_at(make_params: MakeParams, p: float) -> DropoutParams | NoiseParams:
    """Return `make_params(p)`, from a cache, which saves 0.4 us a call."""
    return make_params(p)


# By the name that operators carry in their arguments.
PARAMS_BY_NAME: dict[str, MakeParams] = {
    function.__name__: function for function in (inverted, unscaled, alpha, gaussian, additive_normal)
}
