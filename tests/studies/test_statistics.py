"""Intervals against their definition and against simulation."""

from math import isnan, nan, pi, sqrt, tan
from sys import float_info

import numpy as np
import pytest

from dropkit.studies.evaluation import Metric
from dropkit.studies.recommendation import chance_bound, recommend
from dropkit.studies.rows import rows
from dropkit.studies.setting import BASELINE, Setting
from dropkit.studies.statistics import CONFIDENCE, estimate, seeds_needed
from dropkit.studies.trial import Outcome, Trial

LOSS = Metric("loss", "loss")


@pytest.mark.parametrize(
    ("values", "mean", "half_width"),
    [
        # Student's quantile has a closed form for 1 and 2 degrees of freedom.
        ([1.0, 3.0], 2.0, tan(pi * 0.475)),
        ([1.0, 2.0, 3.0], 2.0, 0.95 * sqrt(2 / (1 - 0.95**2)) / sqrt(3)),
        ([0.25, 0.25, 0.25, 0.25], 0.25, 0.0),
    ],
)
def test_an_estimate_is_the_mean_with_students_interval(values, mean, half_width):
    """Mean and interval equal those computed by hand."""
    result = estimate(values)

    # Near its pole, tan magnifies the rounding of its argument 19 times; all else is rounded a few times.
    bound = 32 * float_info.epsilon * (mean + half_width)
    assert result.mean == mean
    assert abs(result.low - (mean - half_width)) <= bound
    assert abs(result.high - (mean + half_width)) <= bound


def test_several_comparisons_share_the_probability_of_error():
    """The interval of k comparisons is the one whose level is 1 - 0.05 / k; here Student's in closed form, k = 2."""
    wide = estimate([1.0, 3.0], comparisons=2)

    assert wide.high - wide.mean == pytest.approx(tan(pi * (0.5 - 0.05 / 4)))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, nan]], ids=["none", "one", "NaN"])
def test_too_few_numbers_have_no_interval(values):
    """And exclude nothing."""
    result = estimate(values)

    assert isnan(result.low)
    assert not result.excludes_zero


def test_values_without_spread_show_nothing():
    """Equal differences, as of a metric with few values, do not tell how others would vary."""
    assert not estimate([-0.1] * 3).excludes_zero
    # These differ by the rounding of their subtraction.
    assert not estimate([0.1 - 0.2, 0.2 - 0.3, 0.3 - 0.4]).excludes_zero
    assert estimate([-0.1, -0.1, -0.1, -0.10001]).excludes_zero


def study_of(values):
    """Outcomes of one model: `values` are (settings, seeds, 2), the loss in validation and test."""
    return [
        Outcome(
            Trial("net", BASELINE if number == 0 else Setting("dropout", number / len(values)), seed),
            {"validation_loss": float(validation), "test_loss": float(test)},
        )
        for number, of_setting in enumerate(values)
        for seed, (validation, test) in enumerate(of_setting)
    ]  # fmt: skip


def binomial_bound(p, n):
    """Five standard errors."""
    return 5 * sqrt(p * (1 - p) / n)


@pytest.mark.parametrize(("settings", "seeds"), [(2, 3), (6, 5), (12, 5)])
def test_intervals_hold_together(settings, seeds):
    """In at least 95 % of studies each interval of a change contains the true change."""
    rng, n, held = np.random.default_rng(0), 200, 0
    true = np.linspace(0, 1, settings + 1)

    for _ in range(n):
        noise = rng.normal(size=(settings + 1, seeds, 1)) + rng.normal(size=(1, seeds, 1))
        found = rows(study_of(np.broadcast_to(true[:, None, None] + noise, (settings + 1, seeds, 2))))
        changes = [row.changes["test_loss"] for row in found[1:]]
        held += all(c.low <= difference <= c.high for c, difference in zip(changes, true[1:], strict=True))

    assert held / n > CONFIDENCE - binomial_bound(CONFIDENCE, n)


# Of the luck of a trained model, which its validation and test metric share, and of the examples of each.
@pytest.mark.parametrize(
    ("settings", "seeds", "luck", "noise"),
    [(24, 10, 1.0, 0.1), (12, 3, 0.3, 1.0)],
    ids=["luck of training", "few examples"],
)
def test_dropout_that_changes_nothing_is_hardly_ever_recommended(settings, seeds, luck, noise):
    """In at most 5 % of studies, although the best setting is chosen by the same trained models."""
    rng, n, recommended = np.random.default_rng(1), 200, 0

    for _ in range(n):
        trained = luck * rng.normal(size=(settings + 1, seeds, 1)) + rng.normal(size=(1, seeds, 1))
        values = trained + noise * rng.normal(size=(settings + 1, seeds, 2))
        recommended += not recommend(rows(study_of(values)), LOSS).setting.is_baseline

    assert recommended / n < 0.05


def test_dropout_that_helps_is_recommended():
    """With the seeds that a first study asks for, in about four of five studies."""
    rng, n, found = np.random.default_rng(2), 300, 0
    seeds = seeds_needed([-1.0 - sqrt(0.5), -1.0 + sqrt(0.5)], comparisons=1)  # mean -1, standard deviation 1

    for _ in range(n):
        differences = rng.normal(-1, 1, seeds)
        values = np.stack([np.zeros(seeds), differences])[..., None].repeat(2, -1)
        found += recommend(rows(study_of(values)), LOSS).setting == Setting("dropout", 0.5)

    assert abs(found / n - 0.8) < binomial_bound(0.8, n) + 0.02  # the number of seeds is a whole one


def test_more_seeds_are_needed_for_smaller_effects_and_more_comparisons():
    """None are suggested where thousands would not do."""
    spread = [1.0, -1.0, 0.5, -0.5]
    by_effect = [seeds_needed([effect + x for x in spread]) for effect in (2.0, 1.0, 0.5)]
    by_comparisons = [seeds_needed([1.0 + x for x in spread], count) for count in (1, 4, 16)]

    assert by_effect == sorted(by_effect)
    assert len(set(by_effect)) == 3
    assert by_comparisons == sorted(by_comparisons)
    assert seeds_needed(spread) is None
    assert seeds_needed([0.001 + x for x in spread]) is None


def test_changes_are_paired_by_seed():
    """A change that is the same with every seed has an interval of width 0, whatever the order of outcomes."""
    values = np.array([[[1.0] * 2, [3.0] * 2, [9.0] * 2], [[0.5] * 2, [2.5] * 2, [8.5] * 2]])

    baseline, row = rows([*study_of(values)[:3], *reversed(study_of(values)[3:])])

    assert (row.changes["test_loss"].low, row.changes["test_loss"].high) == (-0.5, -0.5)
    assert baseline.changes == {}
    assert row.metrics["test_loss"].error > 1


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_model_that_guesses_is_near_chance(classes):
    """The bound lies below the error of guessing, and comes closer with more examples, to a tenth."""
    import torch

    from dropkit.studies.data import Data

    data = Data(torch.zeros(1000, 1), torch.arange(1000) % classes, tuple(map(str, range(classes))))
    chance = 1 - 1 / classes

    bounds = [chance_bound(data, count) for count in (20, 200, 10**6)]

    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(0.9 * chance)
