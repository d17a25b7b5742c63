"""Mean and variance of functions of independent normal numbers, elementwise: rectifiers, maxima, smooth functions.

Differences of large numbers are avoided, so that small variances survive float32.

Sources: Frey, Hinton, "Variational Learning in Nonlinear Gaussian Belief Networks", Neural Computation 11, 1999
(rectifiers); Clark, "The Greatest of a Finite Set of Random Variables", Operations Research 9, 1961 (maxima).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

# Beyond so many standard deviations nothing of the other side is left, not even in float64.
_FARTHEST = 30.0
# Of the quadrature. Its largest error on the smooth activations, with standard deviations of up to 3, is tested.
_NODES = 16


class Gaussian(NamedTuple):
    """The mean and the variance of each element."""

    mean: Tensor
    variance: Tensor


class _Sides(NamedTuple):
    """What lies above 0: `upper` and `lower` are the probabilities of both sides, `density` is that at 0 times std."""

    std: Tensor
    z: Tensor
    upper: Tensor
    lower: Tensor
    density: Tensor


def relu(x: Gaussian) -> Gaussian:
    """max(x, 0).

    Example:
        >>> relu(Gaussian(torch.tensor(0.0), torch.tensor(1.0)))
        Gaussian(mean=tensor(0.3989), variance=tensor(0.3408))
    """
    return _rectified(x, _sides(x))


def leaky_relu(x: Gaussian, negative_slope: float | Tensor = 0.01) -> Gaussian:
    """x where it is positive, else `negative_slope` times x."""
    slope = negative_slope
    sides = _sides(x)
    above = _rectified(x, sides)
    rest = 1 - slope
    # By Stein's lemma the covariance of x and max(x, 0) is the variance of x times the probability that x > 0.
    shared = x.variance * (slope * slope + 2 * slope * rest * sides.upper)
    return Gaussian(slope * x.mean + rest * above.mean, shared + rest * rest * above.variance)


def clamp(x: Gaussian, min: float | None = None, max: float | None = None) -> Gaussian:
    """x between two limits, of which one may be missing."""
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    if low == -math.inf:
        below = relu(Gaussian(high - x.mean, x.variance))
        return Gaussian(high - below.mean, below.variance)
    above_low = relu(Gaussian(x.mean - low, x.variance))
    if high == math.inf:
        return Gaussian(low + above_low.mean, above_low.variance)
    above_high = relu(Gaussian(x.mean - high, x.variance))
    # `high` less the mean of the result, without a difference of large numbers where all is above `high`.
    missing = relu(Gaussian(high - x.mean, x.variance)).mean - relu(Gaussian(low - x.mean, x.variance)).mean
    variance = above_low.variance - above_high.variance - 2 * above_high.mean * missing
    return Gaussian(high - missing, variance.clamp(min=0))


def maximum(x: Gaussian, y: Gaussian) -> Gaussian:
    """The larger of two independent numbers, which is y + max(x - y, 0)."""
    difference = Gaussian(x.mean - y.mean, x.variance + y.variance)
    sides = _sides(difference)
    mean = x.mean * sides.upper + y.mean * sides.lower + sides.std * sides.density
    variance = y.variance * (sides.lower - sides.upper) + _rectified(difference, sides).variance
    return Gaussian(mean, variance.clamp(min=0))


def quadrature(function: Callable[[Tensor], Tensor], x: Gaussian) -> Gaussian:
    """A smooth function of x, elementwise, by Gauss-Hermite quadrature (Abramowitz, Stegun, 1964, 25.4.46).

    Example:
        >>> quadrature(torch.exp, Gaussian(torch.tensor(0.0), torch.tensor(1.0))).mean
        tensor(1.6487)
    """
    std, center = x.variance.sqrt(), function(x.mean)
    first, second = torch.zeros_like(center), torch.zeros_like(center)
    for node, weight in _nodes():
        # The function's value at the mean is subtracted, so that small variances are no differences of large numbers.
        value = function(torch.add(x.mean, std, alpha=node)).sub_(center)
        first.add_(value, alpha=weight)
        second.add_(value.square_(), alpha=weight)
    return Gaussian(center + first, (second - first.square()).clamp(min=0))


@lru_cache(maxsize=1)
def _nodes() -> list[tuple[float, float]]:
    """The nodes, in standard deviations, and their weights: eigenvalues and eigenvectors of the Jacobi matrix.

    Source: Golub, Welsch, "Calculation of Gauss Quadrature Rules", Mathematics of Computation 23, 1969.
    """
    beside = torch.arange(1, _NODES, dtype=torch.float64).sqrt()
    # The cast: torch declares no types for the results.
    values, vectors = cast("tuple[Tensor, Tensor]", torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1)))
    return list(
        zip(cast("list[float]", values.tolist()), cast("list[float]", vectors[0].square().tolist()), strict=True)
    )


def _sides(x: Gaussian) -> _Sides:
    std = x.variance.sqrt()
    # Without variance, z is infinite, or not a number at 0, where both sides are as good.
    z = (x.mean / std).nan_to_num(nan=0.0).clamp(-_FARTHEST, _FARTHEST)
    return _Sides(std, z, _cdf(z), _cdf(-z), z.square().mul_(-0.5).exp_().div_(math.sqrt(2 * math.pi)))


def _rectified(x: Gaussian, sides: _Sides) -> Gaussian:
    std, z, upper, lower, density = sides
    mean = x.mean * upper + std * density
    of_one = upper + z.square() * upper * lower + z * density * (lower - upper) - density.square()
    return Gaussian(mean.clamp(min=0), x.variance * of_one.clamp(min=0))


def _cdf(z: Tensor) -> Tensor:
    # The cast: torch declares no types for its special functions.
    return cast("Any", torch.special).ndtr(z)
