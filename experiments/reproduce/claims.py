"""Claims of the papers, each with the paired differences that should show it, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import mean

from dropkit.studies import Estimate, Setting, StudyResult, Trial
from dropkit.studies.rows import Row
from dropkit.studies.setting import BASELINE
from dropkit.studies.statistics import estimate
from reproduce.experiments import ALL_SITES, EXPERIMENTS, FIGURES_10, RATES

# Errors that differ by less than this fraction of them count as equal. It was fixed before any result was read.
_EQUAL = 0.1
# Where the paper's figure 9a is flat, and its two ends, in fractions dropped.
_FLAT = (0.2, 0.4, 0.5, 0.6)
_MOST, _HALF = 0.8, 0.5

# "Not shown": the interval allows for both.
VERDICTS = ("agrees", "not shown", "disagrees")

Values = Sequence[float]


class Expected(Enum):
    """What a paper says of a difference."""

    POSITIVE = "above 0"
    ZERO = "0"
    NOT_POSITIVE = "0 or below"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a paper found, and what was measured of it.

    Attributes:
        paper: the claim.
        compared: what the differences are.
        differences: for each seed, in percentage points or per cent.
        expected: what they should be.
        margin: up to here they count as 0.
    """

    paper: str
    compared: str
    differences: Values
    expected: Expected
    margin: float = 0.0

    def estimate(self, comparisons: int) -> Estimate:
        """The mean, with an interval that holds for so many claims together."""
        return estimate(self.differences, comparisons)

    def verdict(self, comparisons: int) -> str:
        """Return one of `VERDICTS`, by the interval alone."""
        agrees, unclear, disagrees = VERDICTS
        value = self.estimate(comparisons)
        if self.expected is Expected.POSITIVE:
            return agrees if value.low > 0 else disagrees if value.high < 0 else unclear
        is_equal = value.high < self.margin and (self.expected is Expected.NOT_POSITIVE or value.low > -self.margin)
        is_other = value.low > self.margin or (self.expected is Expected.ZERO and value.high < -self.margin)
        return agrees if is_equal else disagrees if is_other else unclear


def claims(results: Mapping[str, StudyResult]) -> dict[str, list[Claim]]:
    """Return all claims, by what they are about."""
    tens = {f"Figure 10, {units_of(name)}": _figure_10(results[name]) for name in FIGURES_10}
    return {
        "Figure 9": _figure_9(results["figure 9a"], results["figure 9b"]),
        **tens,
        "Batchwise dropout": _batchwise(results["batchwise"]),
    }


def units_of(name: str, setting: Setting = BASELINE) -> str:
    """The hidden units of an experiment, such as 128-128-256."""
    experiment = EXPERIMENTS[name]
    return "-".join(map(str, experiment.hidden(Trial(next(iter(experiment.settings)), setting, 0))))


def row_of(result: StudyResult, setting: Setting, model: str | None = None) -> Row:
    """The row of a setting, of the only model if None."""
    return next(row for row in result.rows if row.setting == setting and model in (None, row.model))


def minus(values: Values, others: Values) -> list[float]:
    """The differences of pairs."""
    return [value - other for value, other in zip(values, others, strict=True)]


def errors(row: Row, part: str = "test") -> list[float]:
    """The error of each seed, in per cent."""
    return [100 * value for value in row.values(f"{part}_error")]


def _figure_9(fixed: StudyResult, active: StudyResult) -> list[Claim]:
    rows = {p: row_of(fixed, Setting("dropout", p) if p else BASELINE) for p in (0.0, *RATES)}
    others = {p: row_of(active, Setting("dropout", p) if p else BASELINE) for p in (0.0, *RATES)}
    none, half, most = errors(rows[0.0]), errors(rows[_HALF]), errors(rows[_MOST])
    flat = sorted((errors(rows[p]) for p in _FLAT), key=mean)
    best = min((errors(row) for row in others.values()), key=mean)
    return [
        Claim(
            "(a) the error rises sharply where few units are kept",
            f"test error at {_MOST} minus at {_HALF}", minus(most, half), Expected.POSITIVE,
        ),
        Claim(
            "(a) there the training error rises, too: networks underfit",
            f"training error at {_MOST} minus without dropout",
            minus(errors(rows[_MOST], "training"), errors(rows[0.0], "training")), Expected.POSITIVE,
        ),
        Claim(
            f"(a) from {min(_FLAT)} to {max(_FLAT)} dropped, the rate matters little",
            "highest minus lowest mean test error of these rates",
            minus(flat[-1], flat[0]), Expected.ZERO, _EQUAL * mean(flat[0]),
        ),
        Claim(
            "(a) the error rises again where almost all units are kept",
            f"test error without dropout minus at {_HALF}", minus(none, half), Expected.POSITIVE,
        ),
        Claim(
            "(b) with more units at high rates, the error there falls",
            f"test error at {_MOST}, figure 9a minus 9b", minus(most, errors(others[_MOST])), Expected.POSITIVE,
        ),
        Claim(
            "(b) the usual rate of 0.5 is close to the best",
            f"test error at {_HALF} minus that of the best rate",
            minus(errors(others[_HALF]), best), Expected.NOT_POSITIVE, _EQUAL * mean(best),
        ),
    ]  # fmt: skip


def _figure_10(result: StudyResult) -> list[Claim]:
    none = {model: errors(row_of(result, BASELINE, model)) for model in result.plan.settings}
    gains = {model: minus(none[model], errors(row_of(result, ALL_SITES, model))) for model in none}
    few = [
        Claim(
            f"with {digits} digits dropout does not help",
            f"gain with {digits} digits", gains[digits], Expected.NOT_POSITIVE, _EQUAL * mean(none[digits]),
        )
        for digits in ("100", "500")
    ]  # fmt: skip
    return [
        *few,
        Claim(
            "the gain grows with the number of digits",
            "gain with 1000 digits minus with 100", minus(gains["1000"], gains["100"]), Expected.POSITIVE,
        ),
        Claim(
            "beyond some number of digits the gain falls",
            "gain with 1000 digits minus with 3500", minus(gains["1000"], gains["3500"]), Expected.POSITIVE,
        ),
    ]  # fmt: skip


def _batchwise(result: StudyResult) -> list[Claim]:
    none = row_of(result, BASELINE)
    element, batchwise = (row_of(result, Setting(kind, _HALF)) for kind in ("dropout", "batchwise"))
    return [
        Claim(
            "it regularises",
            f"test error without dropout minus batchwise at {_HALF}",
            minus(errors(none), errors(batchwise)), Expected.POSITIVE,
        ),
        Claim(
            "it does so as well as dropout by element",
            f"test error of batchwise minus by element at {_HALF}",
            minus(errors(batchwise), errors(element)), Expected.ZERO, _EQUAL * mean(errors(element)),
        ),
        Claim(
            "training takes less time than without dropout",
            f"time saved at {_HALF}, in % of that without dropout",
            minus([100.0] * len(none.outcomes), [100 * ratio for ratio in time_ratios(batchwise, none)]),
            Expected.POSITIVE,
        ),
    ]  # fmt: skip


def time_ratios(row: Row, other: Row) -> list[float]:
    """How much processor time training took, as a fraction of that of another setting with the same seed."""
    return [a.seconds / b.seconds for a, b in zip(row.outcomes, other.outcomes, strict=True)]
