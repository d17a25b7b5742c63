"""Means with confidence intervals, and how many seeds would show a difference.

Intervals describe what other seeds would give: other splits of the same data, initial weights, orders of batches and
masks. They say nothing of other data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from statistics import mean, stdev

from dropkit.extras import needed_for

# Confidence level of all intervals.
CONFIDENCE = 0.95
# Chance that a difference is shown with so many seeds as are suggested.
_POWER = 0.8
# Values that differ by less, relative to their mean, are equal but for rounding.
_ROUNDING = 1e-9
# More seeds than this are not suggested.
_MAX_SEEDS = 1_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, its standard error, and the ends of its confidence interval; NaN where there are too few values."""

    mean: float
    error: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0. Values without spread have no interval to speak of."""
        return self.error > 0 and (self.low > 0 or self.high < 0)


def estimate(values: Sequence[float], comparisons: int = 1) -> Estimate:
    """Return the mean with Student's interval.

    With several `comparisons` the intervals contain all means together at the confidence level (Bonferroni).

    Sources: Student, "The Probable Error of a Mean", Biometrika 6(1), 1908; Dunn, "Multiple Comparisons Among Means",
    JASA 56(293), 1961.
    """
    if not values or not all(map(isfinite, values)):
        return Estimate(nan, nan, nan, nan)
    center = mean(values)
    if len(values) == 1:
        return Estimate(center, nan, nan, nan)
    error = stdev(values) / sqrt(len(values))
    if error < _ROUNDING * abs(center):
        error = 0.0
    half_width = _quantile(len(values) - 1, _level(comparisons)) * error
    return Estimate(center, error, center - half_width, center + half_width)


def seeds_needed(differences: Sequence[float], comparisons: int = 1) -> int | None:
    """Return with how many seeds the interval would exclude 0 in four of five studies; None for more than 1,000.

    It takes the true mean and spread to be those of `differences`, which few of them tell only roughly.
    """
    center, spread = abs(mean(differences)), stdev(differences)
    # Below, even the smallest standard error of a mean is larger.
    if center * sqrt(_MAX_SEEDS) <= spread:
        return None
    count = 2
    while count <= _MAX_SEEDS:
        distance = _quantile(count - 1, _level(comparisons)) + _quantile(count - 1, _POWER)
        if distance * spread / sqrt(count) <= center:
            return count
        count += max(1, count // 50)
    return None


def _level(comparisons: int) -> float:
    """The share of Student's distribution below the upper end of an interval."""
    return 1 - (1 - CONFIDENCE) / (2 * comparisons)


def _quantile(degrees: int, level: float) -> float:
    with needed_for("the interval of a study", "study"):
        from scipy.special import stdtrit  # pyright: ignore[reportUnknownVariableType] (untyped)
    return float(stdtrit(degrees, level))
