"""Compute means with confidence intervals from runs, and paired differences from the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from statistics import mean, median_low, stdev

from dropkit.study.arms import BASELINE, Arm
from dropkit.study.training import Run

# Confidence level of all intervals.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one arm of one network, over all seeds.

    Attributes:
        network, arm: what was trained.
        runs: one run per seed.
        train_error, test_error: fractions of digits.
        change: test error minus that of the baseline with the same seed; None for the baseline.
        seconds_per_epoch: median over the runs; the lower one of two, since the first run of a process is slow.
    """

    network: str
    arm: Arm
    runs: tuple[Run, ...]
    train_error: Estimate
    test_error: Estimate
    change: Estimate | None
    seconds_per_epoch: float


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean with Student's interval; NaN if a value is not finite.

    Source: Student, "The Probable Error of a Mean", Biometrika 6(1), 1908.
    """
    if not all(map(isfinite, values)):
        return Estimate(nan, nan, nan)
    # Imported lazily: `load()` runs first and reports the missing extra.
    from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType] (untyped)

    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    center = mean(values)
    half_width = quantile * stdev(values) / sqrt(len(values))
    return Estimate(center, center - half_width, center + half_width)


def rows(runs: Iterable[Run]) -> list[Row]:
    """Return one row for each network and arm, in the order of `runs`, which must contain every seed's baseline."""
    groups: dict[tuple[str, Arm], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.network, run.arm), []).append(run)
    return [_row(group, groups[network, BASELINE]) for (network, _), group in groups.items()]


def _row(runs: list[Run], baseline: list[Run]) -> Row:
    network, arm = runs[0].network, runs[0].arm
    baseline_error = {run.seed: run.test_error for run in baseline}
    return Row(
        network=network,
        arm=arm,
        runs=tuple(runs),
        train_error=estimate([run.train_error for run in runs]),
        test_error=estimate([run.test_error for run in runs]),
        change=None if arm == BASELINE else estimate([run.test_error - baseline_error[run.seed] for run in runs]),
        seconds_per_epoch=median_low(run.seconds_per_epoch for run in runs),
    )
