"""Searches for rates per site: they find a planted optimum, stop losers, and go on after an interruption."""

from __future__ import annotations

import json
from random import Random
from statistics import mean

import optuna
import pytest
import torch
from torch import nn

import dropkit
from dropkit.studies import Setting
from dropkit.studies.racing import PairedRace, is_worse
from dropkit.studies.search import Space
from dropkit.studies.tuning import prepare_tuning, run_tuning

SITES = ("first", "second", "third")
OPTIMUM = (0.1, 0.3, 0.6)


def rates(trial):
    setting = trial.setting
    return dict(zip(setting.sites, setting.p, strict=True)) if setting.sites else dict.fromkeys(SITES, setting.p)


def loss(trial, noise=0.02, seed_noise=0.1):
    """A loss with its minimum at OPTIMUM, noise of the seed, which pairs share, and noise of the trial."""
    at = rates(trial)
    distance = sum((at[site] - best) ** 2 for site, best in zip(SITES, OPTIMUM, strict=True))
    shared, own = Random(trial.seed), Random(trial.key)
    value = 1 + distance + shared.gauss(0, seed_noise)
    return {"validation_loss": value + own.gauss(0, noise), "test_loss": value + own.gauss(0, noise)}


def tune(train=loss, **options):
    return dropkit.tune(train=train, sites=SITES, metric="loss", **options)


def error(result):
    """The true loss of what was recommended, above the smallest one."""
    at = rates(type("Trial", (), {"setting": result.recommendation.best}))
    return sum((at[site] - best) ** 2 for site, best in zip(SITES, OPTIMUM, strict=True))


def test_search_is_better_than_random_with_the_same_candidates():
    """The mean distance from a planted optimum over several searches is smaller than that of random rates."""
    options = {"candidates": 24, "seeds": 4}

    searched = mean(error(tune(sampler="tpe", seed=seed, **options)) for seed in range(6))
    drawn = mean(error(tune(sampler="random", seed=seed, **options)) for seed in range(6))

    assert searched < drawn


@pytest.mark.parametrize("sampler", ["cmaes", "gp", "random", "tpe"])
def test_samplers_find_better_rates_than_a_single_one(sampler):
    """Each sampler finds rates whose test loss is better than that of the best single rate."""
    result = tune(sampler=sampler, candidates=16, seeds=3, train=lambda trial: loss(trial, noise=0.001))

    assert result.change_from_single.high < 0


def test_racing_saves_trials_and_keeps_the_winner():
    """A third of the trials or more is saved, and what is found is as good as without racing."""
    raced, full = tune(seeds=8, sampler="random"), tune(seeds=8, sampler="random", pruner="none")

    assert [one.setting for one in raced.candidates] == [one.setting for one in full.candidates]
    assert raced.trials < 2 / 3 * full.trials == 2 / 3 * 31 * 8
    assert raced.recommendation.best == full.recommendation.best


def test_races_between_equals_stop_few():
    """A candidate as good as the leader is stopped in at most 5 % of the races, for all looks together."""
    random, seeds, races = Random(0), 6, 2000

    stopped = 0
    for _ in range(races):
        values = [random.gauss(0, 1) for _ in range(seeds)]
        stopped += any(is_worse(values[:count], seeds - 3) for count in range(1, seeds))

    assert stopped / races < 0.05 + 5 * (0.05 * 0.95 / races) ** 0.5


def test_race_compares_equal_seeds():
    """What seeds share has no part in a race: a candidate that is worse with every seed is stopped."""
    study = optuna.create_study(pruner=PairedRace(6))
    for values in ([0.0, 9.0, 4.0, 7.0, 1.0, 3.0], [0.11, 9.1, 4.09]):
        trial = study.ask()
        for seed, value in enumerate(values):
            trial.report(value, seed)
        if len(values) == 6:
            study.tell(trial, mean(values))

    assert trial.should_prune()


def test_equal_arguments_find_equal_candidates():
    """A search is repeatable."""
    assert tune(candidates=8, seeds=2).candidates == tune(candidates=8, seeds=2).candidates


def test_search_does_not_see_test_examples():
    """Candidates follow from validation examples alone."""

    def train(trial):
        return {**loss(trial), "test_loss": 0.0}

    assert tune(train, candidates=8, seeds=4).candidates == tune(candidates=8, seeds=4).candidates


def test_no_dropout_and_single_rates_are_trained_with_every_seed():
    """What the result is compared with is not stopped."""
    result = tune(seeds=4, candidates=6)

    first = result.candidates[:5]

    assert [str(one.setting) for one in first] == ["no dropout", *(f"dropout p={p}" for p in (0.1, 0.3, 0.5, 0.7))]
    assert {one.seeds for one in first} == {4}


def test_equal_rates_are_one_setting():
    """A candidate with one rate for all sites is the same as that single rate; one without any is no dropout."""
    space = Space("model", "dropout", ("a", "b"))

    assert space.setting({"a": 0.3, "b": 0.3}) == Setting("dropout", 0.3)
    assert space.setting({"a": 0.0, "b": 0.0}).is_baseline
    assert space.setting({"a": 0.15000000000000002, "b": 0.3}).p == (0.15, 0.3)


def test_every_rate_is_tried_once_where_there_are_few():
    """A search ends where nothing new is suggested; no setting is trained twice."""
    result = dropkit.tune(train=lambda t: {"validation_l": 0.1 * t.seed, "test_l": 0.0}, sites=("all",), metric="l",
                          largest=0.2, candidates=30, seeds=2, pruner="none")  # fmt: skip

    assert len({one.setting for one in result.candidates}) == len(result.candidates) == result.trials / 2


@pytest.mark.parametrize("kept", ["folder", "storage"])
@pytest.mark.parametrize("after", [1, 9, 13, 21])
def test_interrupted_search_goes_on_as_if_it_was_not(tmp_path, kept, after):
    """Resumed, it has the candidates and outcomes of an undisturbed search, and trains nothing twice."""
    trained = []

    def train(trial):
        if len(trained) == after:
            trained.append(None)
            raise KeyboardInterrupt
        trained.append(trial)
        return loss(trial)

    where = {"folder": tmp_path}
    if kept == "storage":
        where["storage"] = f"journal:{tmp_path / 'candidates'}"
    options = {"candidates": 8, "seeds": 4}
    with pytest.raises(KeyboardInterrupt):
        tune(train, **options, **where)

    resumed, undisturbed = tune(train, **options, **where, resume=True), tune(**options)

    assert resumed.candidates == undisturbed.candidates
    assert [(o.trial, o.metrics) for o in resumed.study.outcomes] == [
        (o.trial, o.metrics) for o in undisturbed.study.outcomes
    ]
    assert len(trained) == len({trial and trial.key for trial in trained}) == undisturbed.trials + 1


def test_search_is_not_resumed_by_accident(tmp_path):
    """A folder with candidates needs `resume`."""
    tune(candidates=2, seeds=2, folder=tmp_path)

    with pytest.raises(ValueError, match="resume it"):
        tune(candidates=2, seeds=2, folder=tmp_path)


def test_more_candidates_continue_a_search(tmp_path):
    """The number of candidates may grow."""
    few = tune(candidates=5, seeds=2, folder=tmp_path)

    more = tune(candidates=8, seeds=2, folder=tmp_path, resume=True)

    assert more.candidates[:6] == few.candidates
    assert len(more.candidates) == 9


def test_failed_candidates_are_left_out():
    """A candidate whose trial fails is failed, and does not count."""

    def train(trial):
        if trial.setting.sites:
            raise RuntimeError("diverged")
        return loss(trial)

    result = tune(train, candidates=6, seeds=2)

    assert [one.state for one in result.candidates[-2:]] == ["failed", "failed"]
    assert result.best == result.best_single


def test_nothing_is_searched_where_no_dropout_fails():
    """Without a baseline nothing can be concluded, and no candidate is trained."""

    def train(trial):
        raise RuntimeError("diverged")

    result = tune(train, seeds=2)

    assert result.trials == 2
    assert "nothing can be concluded" in str(result)


def test_metrics_that_are_better_when_higher_are_searched_upwards():
    """The direction of the metric counts."""

    def accuracy(trial):
        return {name: -value for name, value in loss(trial, noise=0.001).items()}

    result = tune(accuracy, is_higher_better=True, candidates=12, seeds=3)

    assert result.change_from_single.low > 0
    assert result.ranked[0].change == max(one.change for one in result.candidates if one.state == "complete")


def test_result_is_plain_json():
    """`to_dict` holds what `str` says."""
    result = tune(candidates=6, seeds=2)

    values = json.loads(json.dumps(result.to_dict()))

    assert len(values["candidates"]) == 7
    assert all(sentence in str(result).replace("\n", " ") for sentence in values["sentences"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "grid"}, "sampler must be tpe or random or cmaes or gp, got 'grid'"),
        ({"pruner": "x"}, "pruner must be race or median or wilcoxon or none, got 'x'"),
        ({"seeds": 1}, "seeds must be at least 2, got 1"),
        ({"largest": 0.01}, r"largest must be in \[0.05, 1\], got 0.01"),
        ({"candidates": 0}, "candidates must be"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    """Errors say what is wanted and what came."""
    with pytest.raises(ValueError, match=message):
        tune(**options)


def make():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def examples():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()


def test_model_is_tuned_at_its_own_sites():
    """The sites are those of the model, and the recipe that of the study."""
    tuning = prepare_tuning(make, examples(), candidates=6, seeds=2, epochs=1)
    result = run_tuning(tuning)

    assert tuning.space.sites == ("1", "3")
    assert len(result.candidates) == 7
    assert all(len(outcome.curves["epoch"]) == 1 for outcome in result.study.outcomes)


def test_kinds_without_rates_per_site_are_refused_at_once():
    """Nothing is trained where the kind has one rate."""
    with pytest.raises(ValueError, match="sites must be all"):
        prepare_tuning(make, examples(), kind="batchwise")
