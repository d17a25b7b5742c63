"""study: train models with and without dropout, in pairs, and say which setting to use."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch
from torch import Tensor, nn

from dropkit.arguments import check, did_you_mean
from dropkit.report.progress import Progress
from dropkit.studies.data import Data, split
from dropkit.studies.evaluation import Metric, default_metric, find_metric
from dropkit.studies.inputs import MakeModel, as_data, as_models
from dropkit.studies.kinds import find_sites, kind_of, place_dropout
from dropkit.studies.plan import Plan, provenance
from dropkit.studies.python_call import python_call
from dropkit.studies.readers import read
from dropkit.studies.recommendation import chance_bound
from dropkit.studies.rehearsal import rehearse_all
from dropkit.studies.result import StudyResult
from dropkit.studies.setting import NONE, Setting, ablation, grid
from dropkit.studies.training import Recipe, own_random_numbers
from dropkit.studies.training import train as train_model
from dropkit.studies.trial import Outcome, Trial, not_finite
from dropkit.studies.trial_log import TrialLog
from dropkit.studies.workers import Runner, Train, run
from dropkit.study_defaults import RATES, SEEDS


def study(
    model: nn.Module | MakeModel | Mapping[str, MakeModel] | None = None,
    data: Any = None,
    *,
    train: Callable[[Trial], Mapping[str, float]] | None = None,
    kinds: str | Sequence[str] = "dropout",
    p: float | Sequence[float] = RATES,
    sites: str | Sequence[str] = "all",
    seeds: int = SEEDS,
    metric: str | None = None,
    is_higher_better: bool | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    workers: int = 1,
    progress: bool | None = None,
    **recipe: Any,
) -> StudyResult:
    """Train a model with and without dropout, in pairs, and say which kind and rate to use.

    With one seed, all settings have the same split of the data, initial weights and order of batches. The setting is
    chosen on validation examples, and what it changes is reported on test examples.

    Args:
        model: a function without arguments that makes the model; several by name; or a module, such as a pretrained
            one, of which every trial trains a copy.
        data: a pair of inputs and targets, tensors or arrays; a data frame and the name of its column of targets; a
            mapping with such pairs as "training", "validation" and "test"; a `Dataset` or `DataLoader` that fits into
            memory; a `Data`; or what `dropkit study --data` takes, such as "csv:FILE:TARGET". Integers and text as
            targets are classes, floating-point numbers are values.
        train: instead of `model` and `data`, for a training loop of your own: from a trial to metrics by name. It
            applies `trial.setting` (`dropkit.studies.place_dropout` does) and uses `trial.seed`. The first trial runs
            in this process, and its error is yours.
        kinds: names of `dropkit.studies.KINDS` or of layers of `dropkit.nn`. One that puts the same layers into a model
            as one before it is left out.
        p: rates to try; 0 is no dropout, which is always compared.
        sites: "all" for dropout at every site of the model: its dropouts, or else after its activations; "each" for
            what each site contributes, alone and left out; or names of modules.
        seeds: how often each setting is trained.
        metric: what settings are compared by: "error", "nll", "ece", "rmse", "mae", or a class of torchmetrics, with
            its default arguments; with `train` the name that follows "validation_" and "test_" in its metrics, or is
            one by itself, which is then both.
        is_higher_better: whether the metric is better when it is higher; False with `train` if None.
        folder: where each outcome is kept as it comes; nothing is written if None.
        resume: continue the study that the folder holds.
        workers: processes on this machine; results do not depend on their number.
        progress: True shows a progress bar, False none; None shows one on a terminal.
        recipe: fields of `Recipe`, such as `epochs`.

    Returns:
        The result; print it for a table and a recommendation. Its intervals describe other seeds and splits of the
        same data.

    Raises:
        ValueError: an argument does not fit, as the message says.
        TypeError: `recipe` has an unknown field.
        Exception: the model's own, when it is tried on a few examples before the first trial.

    Example:
        >>> x = torch.randn(60, 4)
        >>> make = lambda: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> result = dropkit.study(make, (x, (x.sum(1) > 0).long()), p=0.5, seeds=2, epochs=1)
        >>> len(result.rows)
        2
    """
    asked: dict[str, Any] = {
        "train": train, "kinds": kinds, "p": p, "sites": sites, "seeds": seeds, "metric": metric,
        "is_higher_better": is_higher_better, **recipe,
    }  # fmt: skip
    plan, train_one = prepare(model, data, **asked)
    first = [] if train is not None else [_names(plan), repr(data) if isinstance(data, str) else "data"]
    plan = replace(plan, provenance=provenance(python_call(study, first, asked)))
    return run_plan(plan, train_one, folder, resume, workers, progress, is_first_here=train is not None)


def prepare(
    model: nn.Module | MakeModel | Mapping[str, MakeModel] | None = None,
    data: Any = None,
    *,
    train: Callable[[Trial], Mapping[str, float]] | None = None,
    kinds: str | Sequence[str] = "dropout",
    p: float | Sequence[float] = RATES,
    sites: str | Sequence[str] = "all",
    seeds: int = SEEDS,
    metric: str | None = None,
    is_higher_better: bool | None = None,
    **recipe: Any,
) -> tuple[Plan, Train]:
    """Return what `study` with these arguments trains, and the function that trains one trial of it."""
    names, rates = (kinds,) if isinstance(kinds, str) else tuple(kinds), _rates(p)
    if train is not None:
        check("model", model is None and data is None, "left out where `train` is given", model)
        check("recipe", not recipe, "left out where `train` is given", ", ".join(recipe))
        check("metric", metric is not None, "given where `train` is", metric)
        check("sites", sites == "all", "left out where `train` is given", sites)
        chosen = Metric(str(metric), str(metric), bool(is_higher_better))
        plan = Plan({"model": grid(names, rates)}, seeds, chosen, description={"train": _source(train)})
        return plan, partial(_call, train, chosen)
    own, how = as_models(model), _recipe(recipe)
    loaded = read(data) if isinstance(data, str) else as_data(data)
    chosen = default_metric(loaded) if metric is None else find_metric(metric, loaded, is_higher_better)
    for name in names:
        if name != NONE:
            kind_of(name)
    settings = {name: _settings(make, loaded, names, rates, sites) for name, make in own.items()}
    plan = Plan(settings, seeds, chosen, _chance(loaded, how), _description(own, loaded, how))
    rehearse_all(plan, own, loaded, how, chosen)
    return plan, partial(_train, own, loaded, how, chosen)


def run_plan(
    plan: Plan,
    train: Train,
    folder: str | Path | None = None,
    resume: bool = False,
    workers: int = 1,
    progress: bool | None = None,
    runner: Runner = run,
    on_outcome: Callable[[Outcome], None] | None = None,
    is_first_here: bool = False,
) -> StudyResult:
    """Run the trials of a plan that the folder does not hold yet.

    Args:
        plan: what is to be trained.
        train: trains one trial.
        folder: keeps each outcome as it comes; None for memory only.
        resume: continue with the outcomes that the folder holds.
        workers: number of processes.
        progress: True shows a progress bar, False none; None shows one on a terminal.
        runner: where trials run; on this machine by default.
        on_outcome: called with each outcome that is new, once the folder holds it.
        is_first_here: whether the first trial of a new study runs in this process, where its error ends the study.
    """
    with TrialLog(folder, plan.to_dict(), resume) as log:
        trials = [trial for trial in plan.trials if trial.key not in log.outcomes]
        with Progress("training", len(plan.trials), visible=progress) as bar:
            bar.update(len(plan.trials) - len(trials), len(plan.trials))

            def keep(outcome: Outcome) -> None:
                log.add(outcome)
                bar.advance(description=str(outcome.trial))
                if on_outcome is not None:
                    on_outcome(outcome)

            if is_first_here and len(trials) == len(plan.trials):
                keep(train(trials.pop(0)))
            runner(trials, train, workers, keep)
        outcomes = log.outcomes
        return StudyResult(plan, tuple(outcomes[t.key] for t in plan.trials if t.key in outcomes))


def _names(plan: Plan) -> str:
    """The models as an argument, by what their functions are called."""
    names = list(plan.settings)
    return names[0] if len(names) == 1 else f"{{{', '.join(f'{name!r}: {name}' for name in names)}}}"


def fingerprint(*tensors: Tensor) -> str:
    """Return a hash of the content of tensors, by which a folder knows its data."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _settings(
    make: MakeModel, data: Data, kinds: Sequence[str], rates: Sequence[float], sites: str | Sequence[str]
) -> tuple[Setting, ...]:
    """The settings of one model."""
    kinds = _distinct(make, data, kinds)
    if sites == "all":
        return grid(kinds, rates)
    if isinstance(sites, str) and sites != "each":
        sites = (sites,)
    if sites != "each":
        return grid(kinds, rates, [tuple(sites)])
    with own_random_numbers("cpu"):
        found = find_sites(make(), data.example)
    return tuple(dict.fromkeys(s for kind in kinds for p in rates if p > 0 for s in ablation(kind, p, found)))


def _distinct(make: MakeModel, data: Data, kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds that put other layers into the model than those before them: not dropout2d where there are no maps."""
    found: dict[tuple[tuple[str, type[nn.Module]], ...], str] = {}
    with own_random_numbers("cpu"):
        for kind in kinds:
            if kind != NONE:
                model = place_dropout(make(), Setting(kind, 0.5), data.example)
                named = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
                found.setdefault(tuple((name, type(module)) for name, module in named), kind)
    return tuple(found.values())


def _train(models: Mapping[str, MakeModel], data: Data, recipe: Recipe, metric: Metric, trial: Trial) -> Outcome:
    return train_model(trial, models[trial.model], data, recipe, metric)


def _call(function: Callable[[Trial], Mapping[str, float]], metric: Metric, trial: Trial) -> Outcome:
    """Run the user's own training. A metric of one part only is that of choice and report."""
    start = perf_counter()
    metrics = {str(name): float(value) for name, value in function(trial).items()}
    seconds = perf_counter() - start
    names = [f"validation_{metric.name}", f"test_{metric.name}"]
    there = next((name for name in (*names, metric.name) if name in metrics), None)
    if there is None:
        wanted = f"a function that returns {' and '.join(names)}, or {metric.name}"
        raise ValueError(f"train must be {wanted}, got {', '.join(metrics) or 'nothing'}")
    metrics = {**dict.fromkeys(names, metrics[there]), **metrics}
    return Outcome(trial, metrics, {}, seconds, not_finite(metrics))


def _rates(p: Any) -> tuple[float, ...]:
    try:
        return (float(p),) if isinstance(p, (int, float, str)) else tuple(map(float, p))
    except (TypeError, ValueError) as error:
        raise ValueError(f"p must be a rate in [0, 1], or several, got {p!r}") from error


def _recipe(values: Mapping[str, Any]) -> Recipe:
    known = [field.name for field in fields(Recipe)]
    for name in values:
        if name not in known:
            hint = did_you_mean(name, [*known, *inspect.signature(study).parameters])
            raise TypeError(f"study() got an unexpected keyword argument {name!r}{hint}")
    return Recipe(**values)


def _chance(data: Data, recipe: Recipe) -> float:
    """The validation error near that of guessing."""
    validation = len(split(data, recipe.sizes, torch.Generator().manual_seed(0)).validation)
    return chance_bound(data, validation)


def _description(models: Mapping[str, MakeModel], data: Data, recipe: Recipe) -> dict[str, Any]:
    content = fingerprint(data.inputs, data.targets)
    with own_random_numbers("cpu"):
        own = {name: _structure(make()) for name, make in models.items()}
    return {"data": data.name, "examples": len(data), "content": content, "models": own, "recipe": asdict(recipe)}


def _structure(model: nn.Module) -> str:
    """A hash of a model's modules and the shapes of its weights; initial values may differ between machines."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return hashlib.sha256(f"{model}{shapes}".encode()).hexdigest()[:16]


def _source(function: Any) -> str:
    """A name and a hash of the source of a function, by which a folder knows it."""
    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        return f"{name} {hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]}"
    except (OSError, TypeError):  # its source is in no file
        return str(name)
