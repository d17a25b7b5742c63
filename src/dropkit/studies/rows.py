"""One row for each setting of a model: means over the seeds, and paired changes from no dropout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median_low

from dropkit.studies.setting import BASELINE, Setting
from dropkit.studies.statistics import Estimate, estimate
from dropkit.studies.trial import Outcome


@dataclass(frozen=True, slots=True)
class Row:
    """The outcomes of one setting.

    Attributes:
        model, setting: what was trained.
        outcomes: one per seed, in the order of the seeds; those of failed trials included.
        metrics: mean over the seeds, by name; only metrics that every trial has.
        changes: each metric minus that of the baseline with the same seed, with intervals that hold for all settings
            of the model together; empty for the baseline.
        seconds: median training time of one trial; the lower one of two, since the first trial of a process is slow.
    """

    model: str
    setting: Setting
    outcomes: tuple[Outcome, ...]
    metrics: Mapping[str, Estimate]
    changes: Mapping[str, Estimate]
    seconds: float

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The outcomes of failed trials."""
        return tuple(outcome for outcome in self.outcomes if outcome.failed)

    def values(self, metric: str) -> list[float]:
        """The metric of each seed."""
        return [outcome.metrics[metric] for outcome in self.outcomes]


def rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """Return the rows of all models, in the order of `outcomes`. Seeds that the baseline lacks are not compared."""
    groups: dict[str, dict[Setting, list[Outcome]]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.trial.model, {}).setdefault(outcome.trial.setting, []).append(outcome)
    return [
        _row(model, setting, group, settings.get(BASELINE, []), max(1, len(settings) - 1))
        for model, settings in groups.items()
        for setting, group in settings.items()
    ]


def differences(outcomes: Iterable[Outcome], others: Iterable[Outcome], metric: str) -> list[float]:
    """Return the metric of `outcomes` minus that of `others` with the same seed, for seeds where neither failed."""
    values = {other.trial.seed: other.metrics[metric] for other in others if not other.failed}
    pairs = [(o.metrics[metric], o.trial.seed) for o in outcomes if not o.failed and o.trial.seed in values]
    return [value - values[seed] for value, seed in pairs]


def _row(model: str, setting: Setting, group: list[Outcome], baseline: list[Outcome], comparisons: int) -> Row:
    group = sorted(group, key=lambda outcome: outcome.trial.seed)
    done = [outcome for outcome in group if not outcome.failed]
    names = [name for name in (done[0].metrics if done else ()) if all(name in outcome.metrics for outcome in done)]
    shared = [name for name in names if all(name in outcome.metrics for outcome in baseline if not outcome.failed)]
    changes: dict[str, Estimate] = {}
    if not setting.is_baseline and baseline:
        changes = {name: estimate(differences(done, baseline, name), comparisons) for name in shared}
    return Row(
        model=model,
        setting=setting,
        outcomes=tuple(group),
        metrics={name: estimate([outcome.metrics[name] for outcome in done]) for name in names},
        changes=changes,
        seconds=median_low([outcome.seconds for outcome in done]) if done else float("nan"),
    )
