"""tune: search for a dropout rate for each site, and say whether it is better than one rate for all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from torch import nn

from dropkit.arguments import check, positive_int
from dropkit.report.progress import Progress
from dropkit.studies.data import Data
from dropkit.studies.inputs import MakeModel, as_data, as_models
from dropkit.studies.kinds import find_sites
from dropkit.studies.plan import Plan
from dropkit.studies.readers import read
from dropkit.studies.recommendation import Recommendation, interval
from dropkit.studies.result import StudyResult
from dropkit.studies.rows import Row, differences
from dropkit.studies.setting import BASELINE, Setting
from dropkit.studies.statistics import Estimate, estimate
from dropkit.studies.storage import import_optuna, open_storage, quiet
from dropkit.studies.study import prepare
from dropkit.studies.training import Recipe, own_random_numbers, rehearse
from dropkit.studies.trial import Outcome, Trial
from dropkit.studies.trial_log import OtherStudy, TrialLog
from dropkit.studies.workers import Runner, Train, run
from dropkit.study_defaults import CANDIDATES, LARGEST, SEEDS

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from dropkit.studies.search import Candidate, Search, Space

# The file in a folder that holds the candidates; trials are in trials.jsonl as those of a study.
_JOURNAL = "search.journal"
# Candidates and columns of a table.
_SHOWN, _WIDTH = 10, 80


@dataclass(frozen=True, slots=True)
class TuningPlan:
    """What a search consists of.

    Attributes:
        plan: no dropout and the single rates that the result is compared with.
        train: trains one trial.
        space: what is searched.
        candidates: how many to try.
        sampler, pruner: keys of `search.SAMPLERS` and `search.PRUNERS`.
        seed: of the sampler.
    """

    plan: Plan
    train: Train
    space: Space
    candidates: int = CANDIDATES
    sampler: str = "tpe"
    pruner: str = "race"
    seed: int = 0

    @property
    def specification(self) -> dict[str, Any]:
        """Plain values that tell searches apart; more candidates continue a search."""
        space = {"kind": self.space.kind, "sites": list(self.space.sites), "largest": self.space.largest}
        search = {**space, "sampler": self.sampler, "pruner": self.pruner, "seed": self.seed}
        return {**self.plan.to_dict(), "search": search}


@dataclass(frozen=True, eq=False)
class TuningResult:
    """What a search found.

    Attributes:
        study: the candidates that were trained with every seed, no dropout first.
        candidates: all, in the order in which they were begun.
        trials: how many trials were trained.
    """

    study: StudyResult
    candidates: tuple[Candidate, ...]
    trials: int

    @property
    def recommendation(self) -> Recommendation:
        """What to use, compared with no dropout on test examples."""
        return self.study.recommendations[0]

    @cached_property
    def best_single(self) -> Setting | None:
        """The single rate that is best on validation examples; None where all failed."""
        row = self._best_single
        return None if row is None else row.setting

    @cached_property
    def change_from_single(self) -> Estimate | None:
        """Test metric of the best candidate minus that of the best single rate, in pairs; None where they are one."""
        best, single = self._best_row, self._best_single
        if best is None or single is None or single is best:
            return None
        return estimate(differences(best.outcomes, single.outcomes, f"test_{self.study.plan.metric.name}"))

    @property
    def best(self) -> Setting | None:
        """The candidate that is best on validation examples; None where all failed."""
        row = self._best_row
        return None if row is None else row.setting

    @property
    def sentences(self) -> tuple[str, ...]:
        """The answers for a person."""
        return (self.recommendation.sentence, *filter(None, [self._about_single]), self._about_racing)

    def __str__(self) -> str:
        metric = self.study.plan.metric
        unit = "points" if metric.is_fraction else ""
        scale = 100 if metric.is_fraction else 1
        lines = [
            f"{'candidate':>9} {'seeds':>5} {'change':>8}  rates    (validation {metric.label} {unit}".rstrip() + ")"
        ]
        for candidate in self.ranked[:_SHOWN]:
            change = "" if candidate.change is None else f"{scale * candidate.change:+.3g}"
            state = "" if candidate.state == "complete" else f" ({candidate.state})"
            lines.append(f"{candidate.number:>9} {candidate.seeds:>5} {change:>8}  {candidate.setting}{state}")
        return "\n".join([*lines, "", *(fill(sentence, _WIDTH) for sentence in self.sentences)])

    @property
    def ranked(self) -> list[Candidate]:
        """Candidates from the best to the worst: those with all seeds, then those that were stopped or failed."""
        sign = -1 if self.study.plan.metric.is_higher_better else 1
        return sorted(
            self.candidates,
            key=lambda c: (c.state != "complete", c.change is None, sign * (c.change or 0.0), c.number),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        change, found = self.change_from_single, self.recommendation
        settings = {"setting": found.setting, "best": self.best, "best_single": self.best_single}
        return {
            "sentences": list(self.sentences),
            **{name: None if setting is None else asdict(setting) for name, setting in settings.items()},
            "change_from_single": None if change is None else asdict(change),
            "trials": self.trials,
            "candidates": list(map(asdict, self.candidates)),
            "study": self.study.to_dict(),
        }  # fmt: skip

    @property
    def _best_single(self) -> Row | None:
        return self._best_of([row for row in self.study.rows if row.setting.sites is None])

    @property
    def _best_row(self) -> Row | None:
        return self._best_of(self.study.rows)

    def _best_of(self, rows: Sequence[Row]) -> Row | None:
        metric = self.study.plan.metric
        name, sign = f"validation_{metric.name}", -1 if metric.is_higher_better else 1
        trained = [row for row in rows if not row.setting.is_baseline and not row.failures and row.metrics]
        return min(trained, key=lambda row: (sign * row.metrics[name].mean, row.setting.complexity), default=None)

    @property
    def _about_single(self) -> str | None:
        best, single, metric = self.best, self.best_single, self.study.plan.metric
        if best is None or single is None or self.recommendation.setting is None:
            return None
        change = self.change_from_single
        if change is None:
            return f"No rates per site were better than one rate for all sites, {single}."
        text = f"{best} compared with the best single rate, {single}: test {metric.label} {interval(change, metric)}"
        return f"{text}." if change.excludes_zero else f"{text}, no difference that these trials could show."

    @property
    def _about_racing(self) -> str:
        stopped = [candidate.state for candidate in self.candidates].count("stopped")
        all_trials = len(self.candidates) * self.study.plan.seeds
        return f"{len(self.candidates) - 1} candidates, {stopped} stopped early: {self.trials} of {all_trials} trials."


def tune(
    model: nn.Module | MakeModel | None = None,
    data: Any = None,
    *,
    train: Callable[[Trial], Mapping[str, float]] | None = None,
    kind: str = "dropout",
    sites: str | Sequence[str] = "all",
    largest: float = LARGEST,
    candidates: int = CANDIDATES,
    seeds: int = SEEDS,
    metric: str | None = None,
    is_higher_better: bool | None = None,
    sampler: str = "tpe",
    pruner: str = "race",
    seed: int = 0,
    folder: str | Path | None = None,
    storage: str | None = None,
    name: str = "dropkit-tune",
    resume: bool = False,
    workers: int = 1,
    progress: bool | None = None,
    **recipe: Any,
) -> TuningResult:
    """Search for a dropout rate for each site of a model with Optuna.

    Every candidate is trained with the same seeds as no dropout, so that they are compared in pairs, on validation
    examples. The first ones have one rate for all sites. After each seed a candidate whose paired difference to the
    best one is significantly worse is stopped. What the best one changes is reported on test examples, compared with
    no dropout and with the best single rate.

    Args:
        model, data, train, metric, is_higher_better, progress, recipe: as of `study`.
        kind: of dropout: a key of `dropkit.studies.KINDS`, or a layer of `dropkit.nn`.
        sites: "all", or names of modules.
        largest: rate to try, in [0.05, 1]; rates are multiples of 0.05.
        candidates: how many to try.
        seeds: how often a candidate is trained, at most.
        sampler: "tpe", "random", "cmaes" or "gp".
        pruner: "race" as above; "median" or "wilcoxon" of Optuna; or "none".
        seed: of the sampler.
        folder: where each outcome and candidate is kept as it comes; nothing is written if None.
        storage: URL of an Optuna storage that holds the candidates instead, as of `open_storage`.
        name: of the search in the storage.
        resume: continue the search that the folder or storage holds, perhaps with more candidates.
        workers: processes on this machine. With one, equal arguments give equal candidates; with more, which
            candidates are tried depends on which are finished first.

    Returns:
        The result; print it for a table and the answer.

    Raises:
        ValueError: an argument does not fit, as the message says.
        ImportError: Optuna is not installed.

    Example:
        >>> x = torch.randn(60, 4)
        >>> make = lambda: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> result = dropkit.tune(make, (x, (x.sum(1) > 0).long()), candidates=2, seeds=2, epochs=1)
        >>> len(result.candidates)
        3
    """
    tuning = prepare_tuning(
        model, data, train=train, kind=kind, sites=sites, largest=largest, candidates=candidates, seeds=seeds,
        metric=metric, is_higher_better=is_higher_better, sampler=sampler, pruner=pruner, seed=seed, **recipe,
    )  # fmt: skip
    return run_tuning(tuning, folder, storage, name, resume, workers, progress)


def prepare_tuning(
    model: nn.Module | MakeModel | Mapping[str, MakeModel] | None = None,
    data: Any = None,
    *,
    train: Callable[[Trial], Mapping[str, float]] | None = None,
    kind: str = "dropout",
    sites: str | Sequence[str] = "all",
    largest: float = LARGEST,
    candidates: int = CANDIDATES,
    seeds: int = SEEDS,
    metric: str | None = None,
    is_higher_better: bool | None = None,
    sampler: str = "tpe",
    pruner: str = "race",
    seed: int = 0,
    **recipe: Any,
) -> TuningPlan:
    """Return what `tune` with these arguments searches."""
    import_optuna()
    from dropkit.studies.search import PRUNERS, SAMPLERS, SINGLE_RATES, STEP, Space

    positive_int("candidates", candidates)
    check("seeds", positive_int("seeds", seeds) >= 2, "at least 2", seeds)
    check("sampler", sampler in SAMPLERS, " or ".join(SAMPLERS), repr(sampler))
    check("pruner", pruner in PRUNERS, " or ".join(PRUNERS), repr(pruner))
    single: Any = {"kinds": kind, "p": SINGLE_RATES, "seeds": seeds, "metric": metric}
    if train is not None:
        check("sites", not isinstance(sites, str), "names where `train` is given", sites)
        plan, train_one = prepare(model, data, train=train, is_higher_better=is_higher_better, **single, **recipe)
        return TuningPlan(
            plan, train_one, Space("model", kind, tuple(sites), largest), candidates, sampler, pruner, seed
        )
    models = as_models(model)
    check("model", len(models) == 1, "one model", len(models))
    ((name, make),) = models.items()
    loaded = read(data) if isinstance(data, str) else as_data(data)
    plan, train_one = prepare(models, loaded, is_higher_better=is_higher_better, **single, **recipe)
    space = Space(name, kind, _sites(make, loaded, sites), largest)
    rates = tuple(STEP * (number % 2 + 1) for number in range(len(space.sites)))
    rehearse(Trial(name, Setting(kind, rates, space.sites), 0), make, loaded, Recipe(**recipe), plan.metric)
    return TuningPlan(plan, train_one, space, candidates, sampler, pruner, seed)


def run_tuning(
    tuning: TuningPlan,
    folder: str | Path | None = None,
    storage_url: str | None = None,
    name: str = "dropkit-tune",
    resume: bool = False,
    workers: int = 1,
    progress: bool | None = None,
    runner: Runner = run,
    known: Iterable[Outcome] = (),
) -> TuningResult:
    """Run a search, as `tune` does.

    Args:
        tuning: what is searched.
        folder, name, resume, progress: as of `tune`.
        storage_url: its `storage`.
        workers: how many candidates are trained at the same time.
        runner: where trials run; on this machine by default.
        known: outcomes that there are besides those in the folder.
    """
    from dropkit.studies.search import Search

    plan = tuning.plan
    with TrialLog(folder, tuning.specification, resume) as log:
        for outcome in known:
            log.add(outcome)
        url = storage_url or (None if folder is None else f"journal:{Path(folder, _JOURNAL)}")
        storage = import_optuna().storages.InMemoryStorage() if url is None else open_storage(url)
        study = _optuna_study(storage, name, tuning.specification, resume)
        search = Search(
            storage, study, tuning.space, tuning.candidates, plan.seeds, plan.metric, tuning.sampler, tuning.pruner,
            tuning.seed, workers,
        )  # fmt: skip
        with Progress("searching", (tuning.candidates + 1) * plan.seeds, visible=progress) as bar:

            def next_trials(outcome: Outcome) -> list[Trial]:
                log.add(outcome)
                bar.update(len(log.outcomes), (tuning.candidates + 1) * plan.seeds, str(outcome.trial.setting))
                return _not_known(search(outcome), search, log)

            runner(_not_known(search.start(), search, log), tuning.train, workers, next_trials)
        return _result(tuning, search, log)


def _not_known(trials: Iterable[Trial], search: Search, log: TrialLog) -> list[Trial]:
    """The trials that must run, after those with an outcome from an earlier run."""
    waiting, found = deque(trials), list[Trial]()
    while waiting:
        trial = waiting.popleft()
        outcome = log.outcomes.get(trial.key)
        if outcome is None:
            found.append(trial)
        else:
            waiting.extend(search(outcome))
    return found


def _sites(make: MakeModel, data: Data, sites: str | Sequence[str]) -> tuple[str, ...]:
    if sites == "all":
        with own_random_numbers("cpu"):
            return find_sites(make(), data.example)
    return (sites,) if isinstance(sites, str) else tuple(sites)


def _optuna_study(storage: BaseStorage, name: str, specification: Mapping[str, Any], resume: bool) -> Any:
    """The study that holds the candidates."""
    from dropkit.studies.shared_study import comparable

    optuna = import_optuna()
    there = comparable(specification)
    with quiet(optuna):
        study = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
    before = study.user_attrs.get("specification")
    if before is None:
        study.set_user_attr("specification", there)
    elif before != there:
        raise OtherStudy(f"the storage has another search {name}; take another name")
    elif study.get_trials(deepcopy=False) and not resume:
        raise OtherStudy(f"the storage has candidates of a search {name}; resume it, or take another name")
    return study


def _result(tuning: TuningPlan, search: Search, log: TrialLog) -> TuningResult:
    candidates = tuple(search.candidates)
    complete = [candidate.setting for candidate in candidates if candidate.state == "complete"]
    settings = [setting for setting in complete if setting != BASELINE]
    (model,) = tuning.plan.settings
    # A plan has at least one setting with dropout, also where none was completed.
    shown = settings or [tuning.plan.settings[model][1]]
    plan = replace(tuning.plan, settings={model: (BASELINE, *shown)})
    outcomes = tuple(log.outcomes[trial.key] for trial in plan.trials if trial.key in log.outcomes)
    return TuningResult(StudyResult(plan, outcomes), candidates, len(log.outcomes))
