"""Means with confidence intervals, paired differences, and how many seeds would show one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, nan, sqrt
from statistics import mean, stdev

# Confidence level of all intervals.
CONFIDENCE = 0.95
# More seeds than this are not suggested.
_MAX_SEEDS = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, its standard error, and the ends of its confidence interval; NaN where there are too few values."""

    mean: float
    error: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


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
    half_width = _quantile(len(values) - 1, comparisons) * error
    return Estimate(center, error, center - half_width, center + half_width)


def seeds_needed(differences: Sequence[float]) -> int | None:
    """Return how many seeds an interval needs that excludes 0, if mean and spread stay; None for more than 10,000."""
    center, spread = abs(mean(differences)), stdev(differences)
    if spread == 0:
        return len(differences)
    if center == 0:
        return None
    # The normal quantile gives a lower bound; Student's is larger by little from there on.
    count = max(len(differences), 2, ceil((1.96 * spread / center) ** 2))
    while count <= _MAX_SEEDS and _quantile(count - 1, 1) * spread / sqrt(count) >= center:
        count += max(1, count // 50)
    return count if count <= _MAX_SEEDS else None


def _quantile(degrees: int, comparisons: int) -> float:
    from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType] (untyped)

    return float(stdtrit(degrees, 1 - (1 - CONFIDENCE) / (2 * comparisons)))
