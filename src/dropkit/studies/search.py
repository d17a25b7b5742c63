"""Search: which rates to try next, by Optuna, and what came of them.

Candidates are trained seed by seed and compared with no dropout by the same seed. No dropout and single rates for the
whole model come first: what the search finds must be better than they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from dropkit.arguments import check
from dropkit.extras import needed_for
from dropkit.studies.evaluation import Metric
from dropkit.studies.racing import PairedRace
from dropkit.studies.setting import BASELINE, Setting
from dropkit.studies.trial import Outcome, Trial

# Rates differ by this much: smaller differences have no effect that a few seeds could show.
STEP = 0.05
# Single rates that are tried first.
SINGLE_RATES = (0.1, 0.3, 0.5, 0.7)
# A sampler that suggests the same again is asked this often, per candidate.
_ASKS = 3
# How a candidate ended.
COMPLETE, STOPPED, FAILED = "complete", "stopped", "failed"
_STATES = {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: STOPPED, TrialState.FAIL: FAILED}
# Attributes of Optuna's trials: of a single rate, which is trained with all seeds, and of a copy.
_SINGLE, _SAME = "single rate", "same as another"


def _cmaes(seed: int) -> BaseSampler:
    with needed_for("sampler cmaes", "tune"):
        return optuna.samplers.CmaEsSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "cmaes": _cmaes,
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
}
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "race": PairedRace,
    "median": lambda seeds: optuna.pruners.MedianPruner(n_warmup_steps=1),
    "wilcoxon": lambda seeds: optuna.pruners.WilcoxonPruner(p_threshold=0.05),
    "none": lambda seeds: optuna.pruners.NopPruner(),
}


@dataclass(frozen=True, slots=True)
class Space:
    """What is searched: a rate for each site.

    Attributes:
        model: name of the model.
        kind: of dropout.
        sites: names of its sites.
        largest: rate.
    """

    model: str
    kind: str
    sites: tuple[str, ...]
    largest: float = 0.8

    def __post_init__(self) -> None:
        check("largest", STEP <= self.largest <= 1, f"in [{STEP}, 1]", self.largest)

    @property
    def distributions(self) -> dict[str, Any]:
        """The rates, for Optuna."""
        return {
            site: FloatDistribution(0, round(int(self.largest / STEP + 1e-9) * STEP, 4), step=STEP)
            for site in self.sites
        }

    @property
    def single_rates(self) -> tuple[float, ...]:
        """Rates for the whole model that are tried first."""
        return tuple(rate for rate in SINGLE_RATES if rate <= self.largest)

    def setting(self, rates: Mapping[str, float]) -> Setting:
        """The setting of a rate for each site; equal rates are one rate."""
        values = tuple(round(rates[site], 4) for site in self.sites)
        if not any(values):
            return BASELINE
        return Setting(self.kind, values[0]) if len(set(values)) == 1 else Setting(self.kind, values, self.sites)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A setting that was tried.

    Attributes:
        number: in the order in which candidates were begun; 0 is no dropout.
        setting: its rates.
        state: "complete", "stopped" since it was worse than the best one, or "failed".
        change: mean validation metric minus that of no dropout with the same seeds; None where there is none.
        seeds: how many were trained.
    """

    number: int
    setting: Setting
    state: str
    change: float | None
    seeds: int


class Search:
    """Decides which trial to train after each outcome.

    The same outcomes in the same order lead to the same candidates, also when a search is resumed.

    Args:
        storage: of Optuna.
        study: in this storage; it is continued if it has trials.
        space: what is searched.
        candidates: how many to try, those with single rates included, no dropout not.
        seeds: trained of each, unless it is stopped.
        metric: what candidates are compared by, on validation examples.
        sampler: key of `SAMPLERS`.
        pruner: key of `PRUNERS`.
        seed: of the sampler.
        parallel: how many candidates are trained at the same time.
    """

    def __init__(
        self,
        storage: BaseStorage,
        study: optuna.Study,
        space: Space,
        candidates: int,
        seeds: int,
        metric: Metric,
        sampler: str = "tpe",
        pruner: str = "race",
        seed: int = 0,
        parallel: int = 1,
    ) -> None:
        self._storage, self._id = storage, storage.get_study_id_from_name(study.study_name)
        self._study, self._space, self._candidates, self._seeds = study, space, candidates, seeds
        self._metric, self._sampler, self._seed, self._parallel = metric, SAMPLERS[sampler], seed, parallel
        self._pruner = PRUNERS[pruner](seeds)
        self._baseline: dict[int, Outcome] = {}
        # The number of each candidate that is being trained.
        self._running: dict[Setting, int] = {}

    def start(self) -> list[Trial]:
        """Return the first trials: those without dropout, for each seed."""
        if not self._trials():
            for rate in (0.0, *self._space.single_rates[: self._candidates]):
                self._study.enqueue_trial(dict.fromkeys(self._space.sites, rate), {_SINGLE: rate})
        return [Trial(self._space.model, BASELINE, seed) for seed in range(self._seeds)]

    def __call__(self, outcome: Outcome) -> list[Trial]:
        """Return the trials that follow from an outcome."""
        setting, seed = outcome.trial.setting, outcome.trial.seed
        if setting == BASELINE:
            self._baseline[seed] = outcome
            is_ready = len(self._baseline) == self._seeds and not any(o.failed for o in self._baseline.values())
            return self._begin() if is_ready else []
        number = self._running[setting]
        if outcome.failed:
            return self._end(setting, TrialState.FAIL)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        self._storage.set_trial_intermediate_value(trial_id, seed, self._change(outcome))
        return self._go_on(setting)

    @property
    def candidates(self) -> list[Candidate]:
        """What was tried to its end, in the order in which it was begun."""
        sign = -1 if self._metric.is_higher_better else 1
        found: list[Candidate] = []
        for trial in self._tried():
            values = list(trial.intermediate_values.values())
            change = sign * mean(values) if values else None
            found.append(Candidate(len(found), self._setting(trial), _STATES[trial.state], change, len(values)))
        return found

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    def _trial(self, number: int) -> FrozenTrial:
        return self._trials()[number]

    def _tried(self) -> list[FrozenTrial]:
        """Finished trials, each setting once."""
        return [trial for trial in self._trials(*_STATES) if _SAME not in trial.user_attrs]

    def _setting(self, trial: FrozenTrial) -> Setting:
        return self._space.setting(trial.params)

    def _change(self, outcome: Outcome) -> float:
        """The validation metric minus that of no dropout with the same seed; lower is better."""
        name = f"validation_{self._metric.name}"
        change = outcome.metrics[name] - self._baseline[outcome.trial.seed].metrics[name]
        return -change if self._metric.is_higher_better else change

    def _begin(self) -> list[Trial]:
        """Begin the first candidates, or go on with those of a process that ended."""
        unfinished = {self._setting(trial): trial.number for trial in self._trials(TrialState.RUNNING)}
        self._running |= unfinished
        trials = [trial for setting in unfinished for trial in self._go_on(setting)]
        for _ in range(self._parallel - len(unfinished)):
            trials += self._next()
        return trials

    def _go_on(self, setting: Setting) -> list[Trial]:
        """Train a candidate with its next seed, or end it."""
        trial = self._trial(self._running[setting])
        seed = len(trial.intermediate_values)
        if seed == self._seeds:
            return self._end(setting, TrialState.COMPLETE)
        if seed and _SINGLE not in trial.user_attrs and self._pruner.prune(self._study, trial):
            return self._end(setting, TrialState.PRUNED)
        return [Trial(self._space.model, setting, seed)]

    def _end(self, setting: Setting, state: TrialState) -> list[Trial]:
        trial = self._trial(self._running.pop(setting))
        value = mean(trial.intermediate_values.values()) if state == TrialState.COMPLETE else None
        self._study.tell(trial.number, value, state)
        return self._next()

    def _next(self) -> list[Trial]:
        """Begin another candidate, unless there are enough, or nothing new is suggested."""
        for _ in range(_ASKS * self._candidates):
            tried = {self._setting(trial): trial for trial in self._tried()}
            if len(tried.keys() | {BASELINE}) + len(self._running) > self._candidates:
                return []
            # A sampler of its own for each candidate, so that a search which is resumed goes on as if it had not ended.
            self._study.sampler = self._sampler(self._seed + len(self._trials()))
            trial = self._study.ask(self._space.distributions)
            setting = self._space.setting(trial.params)
            if setting in tried or setting in self._running:
                self._copy(trial, tried.get(setting))
            elif setting == BASELINE:
                for seed in range(self._seeds):
                    trial.report(0.0, seed)
                self._study.tell(trial, 0.0)
            else:
                self._running[setting] = trial.number
                return [Trial(self._space.model, setting, 0)]
        return []

    def _copy(self, trial: optuna.Trial, same: FrozenTrial | None) -> None:
        """Give a trial the result of another one with the same rates; none if that one is not finished."""
        trial.set_user_attr(_SAME, True)
        for seed, value in same.intermediate_values.items() if same else ():
            trial.report(value, seed)
        state = same.state if same else TrialState.FAIL
        self._study.tell(trial, same.value if same and state == TrialState.COMPLETE else None, state)
