"""Which setting to use, in one sentence, or what these trials cannot tell.

The setting is chosen on validation examples by the one-standard-error rule: the one with the least dropout whose metric
is within one standard error of the best one's. What it changes is reported on test examples, which had no part in the
choice, so that one interval is enough. Source: Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees",
1984, section 3.4.3; the standard error is that of paired differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, sqrt
from statistics import mean, stdev

from dropkit.studies.evaluation import Metric
from dropkit.studies.kinds import KINDS
from dropkit.studies.rows import Row, differences
from dropkit.studies.setting import Setting
from dropkit.studies.statistics import Estimate, estimate, seeds_needed


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What the trials of one model show.

    Attributes:
        model: its name.
        setting: what to use; None where nothing can be concluded.
        best: the setting that is compared with no dropout: the chosen one, or the best one if no dropout is chosen.
        change: test metric of `best` minus that of no dropout, paired, with an interval; None without conclusion.
        more_seeds: about how many more seeds would show a difference of this size; None if it is shown, or would take
            thousands.
        sentence: the answer for a person.
    """

    model: str
    setting: Setting | None
    best: Setting | None
    change: Estimate | None
    more_seeds: int | None
    sentence: str


def recommend(rows: Sequence[Row], metric: Metric, chance: float | None = None) -> Recommendation:
    """Return what the rows of one model show.

    Args:
        rows: of one model.
        metric: what is compared.
        chance: the validation metric that a model which guesses may reach; None if that is unknown.
    """
    model = rows[0].model
    chosen_by, reported_by = f"validation_{metric.name}", f"test_{metric.name}"
    baseline = next((row for row in rows if row.setting.is_baseline), None)
    reason = _why_nothing(baseline, rows, metric, chosen_by, chance)
    if reason is not None or baseline is None:
        return Recommendation(model, None, None, None, None, f"{model}: nothing can be concluded, since {reason}.")
    complete = [row for row in rows if _is_complete(row, baseline)]
    candidates = [row for row in complete if _is_advised(row)]
    sign = -1 if metric.is_higher_better else 1
    best = min(candidates, key=lambda row: (sign * row.metrics[chosen_by].mean, row.setting.complexity))
    near = [row for row in candidates if _is_as_good(row, best, chosen_by, sign)]
    chosen = min(near, key=lambda row: (not row.setting.is_baseline, row.setting.complexity))
    compared = best if chosen is baseline else chosen
    left_out = len(rows) - len(complete)
    note = f" {left_out} settings with failed or missing trials had no part in it." if left_out else ""
    if compared is baseline:
        return Recommendation(
            model, baseline.setting, baseline.setting, None, None,
            f"{model}: use no dropout; no other setting has a better validation {metric.label}.{note}",
        )  # fmt: skip
    changes = differences(compared.outcomes, baseline.outcomes, reported_by)
    change = estimate(changes)
    text = f"{compared.setting} changes the test {metric.label} by {interval(change, metric)}"
    if change.excludes_zero and sign * change.mean < 0:
        sentence = f"{model}: use {compared.setting}; it changes the test {metric.label} by {interval(change, metric)}"
        return Recommendation(model, compared.setting, compared.setting, change, None, f"{sentence}.{note}")
    if change.excludes_zero:
        sentence = f"{model}: use no dropout; {text}"
        return Recommendation(model, baseline.setting, compared.setting, change, None, f"{sentence}.{note}")
    needed = seeds_needed(changes)
    more = None if needed is None else max(1, needed - len(changes))
    would = "thousands of seeds would not show one of this size" if more is None else f"about {more} more seeds would"
    sentence = f"{model}: no difference that these trials could show ({text}); {would}"
    return Recommendation(model, baseline.setting, compared.setting, change, more, f"{sentence}.{note}")


def interval(change: Estimate, metric: Metric) -> str:
    """A change with its interval, for a sentence."""
    if metric.is_fraction:
        return f"{100 * change.mean:+.2f} points ({100 * change.low:+.2f} to {100 * change.high:+.2f})"
    return f"{change.mean:+.3g} ({change.low:+.3g} to {change.high:+.3g})"


def chance_bound(chance: float, count: int) -> float:
    """Return the error from which on a model is near chance: a tenth, or three standard errors, below that of guessing.

    Args:
        chance: the error of guessing.
        count: on how many examples it is measured.
    """
    return chance - max(0.1 * chance, 3 * sqrt(chance * (1 - chance) / count))


def _is_advised(row: Row) -> bool:
    kind = KINDS.get(row.setting.kind)
    return kind is None or kind.is_advised


def _is_complete(row: Row, baseline: Row) -> bool:
    """Whether all trials succeeded, and none is missing, as where a study or a setting was stopped."""
    return not row.failures and len(row.outcomes) >= len(baseline.outcomes)


def _why_nothing(
    baseline: Row | None, rows: Sequence[Row], metric: Metric, chosen_by: str, chance: float | None
) -> str | None:
    if baseline is None:
        return "there is no trial without dropout to compare with"
    if baseline.failures:
        count, failure = len(baseline.failures), baseline.failures[0].failure
        return f"{count} of {len(baseline.outcomes)} trials without dropout failed ({failure})"
    if len(baseline.outcomes) < 2:
        return "an interval needs at least 2 seeds"
    if not any(_is_complete(row, baseline) for row in rows if row is not baseline):
        return "every setting with dropout has failed or missing trials"
    if chosen_by not in baseline.metrics or isnan(baseline.metrics[chosen_by].mean):
        return f"there is no {chosen_by}"
    if chance is not None and (worst := max(baseline.values(chosen_by))) >= chance:
        return f"the model without dropout is near chance: its validation {metric.label} is {worst:.1%}"
    return None


def _is_as_good(row: Row, best: Row, metric: str, sign: int) -> bool:
    """Whether a setting is within one standard error, of the paired difference, of the best one."""
    changes = [sign * value for value in differences(row.outcomes, best.outcomes, metric)]
    if row is best:
        return True
    return mean(changes) <= stdev(changes) / sqrt(len(changes))
