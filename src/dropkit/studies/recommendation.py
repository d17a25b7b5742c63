"""Which setting to use, in one sentence, or what these trials cannot tell.

The setting is chosen on validation examples by the one-standard-error rule: the one with the least dropout whose metric
is within one standard error of the best one's. What it changes is reported on test examples, with the interval that
holds for all settings together: the examples had no part in the choice, but the trained models had. With the interval
of a single comparison, and 12 settings that change nothing, one would be recommended in up to 8 of 100 studies of 5
seeds; with this one in about 1. Source: Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", 1984,
section 3.4.3; the standard error is that of paired differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

from dropkit.report.units import counted
from dropkit.studies.data import Data
from dropkit.studies.evaluation import Metric
from dropkit.studies.kinds import KINDS
from dropkit.studies.rows import Row, differences
from dropkit.studies.setting import Setting
from dropkit.studies.statistics import Estimate, seeds_needed

# By these metrics, which each task has one of, a model is near chance, whatever settings are compared by.
_SHOW_LEARNING = ("validation_error", "validation_rmse")


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What the trials of one model show.

    Attributes:
        model: its name.
        setting: what to use; None where nothing can be concluded.
        best: the setting that is compared with no dropout: the chosen one, or the best one if no dropout is chosen.
        change: test metric of `best` minus that of no dropout, paired, with the interval of its row; None without
            conclusion.
        more_seeds: about how many more seeds would show a difference of this size, in four of five studies; None if
            it is shown, or would take more than 1,000.
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
        chance: the validation error, or root mean squared error, that a model which guesses may reach; None if that is
            unknown.
    """
    model = rows[0].model
    chosen_by, reported_by = f"validation_{metric.name}", f"test_{metric.name}"
    baseline = next((row for row in rows if row.setting.is_baseline), None)
    reason = _why_nothing(baseline, rows, chosen_by, reported_by, chance)
    if reason is not None or baseline is None:
        return _nothing(model, str(reason))
    complete = [row for row in rows if _is_complete(row, baseline)]
    candidates = [row for row in complete if _is_advised(row)]
    sign = -1 if metric.is_higher_better else 1
    best = min(candidates, key=lambda row: (sign * row.metrics[chosen_by].mean, row.setting.complexity))
    near = [row for row in candidates if _is_as_good(row, best, chosen_by, sign)]
    chosen = min(near, key=lambda row: (not row.setting.is_baseline, row.setting.complexity))
    compared = best if chosen is baseline else chosen
    left_out = len(rows) - len(complete)
    note = f" {counted(left_out, 'setting')} with failed or missing trials had no part in it." if left_out else ""
    if compared is baseline:
        return Recommendation(
            model, baseline.setting, baseline.setting, None, None,
            f"{model}: use no dropout; no other setting has a better validation {metric.label}.{note}",
        )  # fmt: skip
    changes, change = differences(compared.outcomes, baseline.outcomes, reported_by), compared.changes[reported_by]
    if change.error == 0 != change.mean:
        reason = f"{compared.setting} changes the test {metric.label} by {change.mean:+.3g} with every seed"
        hint = "more test examples would show how it varies, unless the training ignores the seed"
        return _nothing(model, f"{reason}; {hint}")
    if all(outcome.metrics[chosen_by] == outcome.metrics[reported_by] for row in complete for outcome in row.outcomes):
        note += " It is chosen and reported on the same examples, which makes the change look better than it is."
    text = f"{compared.setting} changes the test {metric.label} by {interval(change, metric)}"
    if change.excludes_zero and sign * change.mean < 0:
        sentence = f"{model}: use {compared.setting}; it changes the test {metric.label} by {interval(change, metric)}"
        return Recommendation(model, compared.setting, compared.setting, change, None, f"{sentence}.{note}")
    if change.excludes_zero:
        sentence = f"{model}: use no dropout; {text}"
        return Recommendation(model, baseline.setting, compared.setting, change, None, f"{sentence}.{note}")
    needed = seeds_needed(changes, max(1, len(rows) - 1))
    more = None if needed is None else max(1, needed - len(changes))
    would = (
        "1,000 seeds would not show one of this size" if more is None else f"about {counted(more, 'more seed')} would"
    )
    sentence = f"{model}: no difference that these trials could show ({text}); {would}"
    return Recommendation(model, baseline.setting, compared.setting, change, more, f"{sentence}.{note}")


def _nothing(model: str, reason: str) -> Recommendation:
    return Recommendation(model, None, None, None, None, f"{model}: nothing can be concluded, since {reason}.")


def interval(change: Estimate, metric: Metric) -> str:
    """A change with its interval, for a sentence."""
    if metric.is_fraction:
        return f"{100 * change.mean:+.2f} points ({100 * change.low:+.2f} to {100 * change.high:+.2f})"
    return f"{change.mean:+.3g} ({change.low:+.3g} to {change.high:+.3g})"


def chance_bound(data: Data, count: int) -> float:
    """Return the error of classes, or root mean squared error of values, from which on a model is near chance.

    It is two standard errors below that of guessing always the most frequent class, or the mean of the values; for
    classes at least a tenth below. Of noisy values even a good model may explain less than a tenth. A model that
    guesses comes below with one seed in 40, and hardly ever with all.

    Args:
        data: what is predicted.
        count: on how many examples the error is measured.
    """
    if data.task == "regression":
        spread = float(data.targets.double().std(0, correction=0).square().mean().sqrt())
        return spread * (1 - 2 / sqrt(2 * count))
    counts = data.targets.reshape(-1).bincount()
    chance = 1 - float(counts.max()) / float(counts.sum())
    return chance - max(0.1 * chance, 2 * sqrt(chance * (1 - chance) / (count * data.targets[0].numel())))


def _is_advised(row: Row) -> bool:
    kind = KINDS.get(row.setting.kind)
    return kind is None or kind.is_advised


def _is_complete(row: Row, baseline: Row) -> bool:
    """Whether all trials succeeded, and none is missing, as where a study or a setting was stopped."""
    return not row.failures and len(row.outcomes) >= len(baseline.outcomes)


def _why_nothing(
    baseline: Row | None, rows: Sequence[Row], chosen_by: str, reported_by: str, chance: float | None
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
    missing = next((name for name in (chosen_by, reported_by) if name not in baseline.metrics), None)
    if missing is not None:
        return f"there is no {missing}"
    learnt_by = next((name for name in _SHOW_LEARNING if name in baseline.metrics), None)
    if chance is not None and learnt_by is not None and (worst := max(baseline.values(learnt_by))) >= chance:
        shown = f"{worst:.1%}" if learnt_by == "validation_error" else f"{worst:.3g}"
        return f"the model without dropout is near chance: its {learnt_by.replace('_', ' ')} is {shown}"
    return None


def _is_as_good(row: Row, best: Row, metric: str, sign: int) -> bool:
    """Whether a setting is within one standard error, of the paired difference, of the best one."""
    changes = [sign * value for value in differences(row.outcomes, best.outcomes, metric)]
    if row is best:
        return True
    return mean(changes) <= stdev(changes) / sqrt(len(changes))
