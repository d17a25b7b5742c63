"""Metrics of values: every number is that computed by hand or by a formula."""

import json
import math
from dataclasses import replace
from math import exp, log, pi, sqrt
from statistics import NormalDist, mean, stdev

import pytest
import torch
from helpers.predictions import values

from dropkit.mc.metrics import fit_tau, interval, regression_report

EPS = torch.finfo(torch.float32).eps


def test_the_likelihood_is_that_of_a_mixture():
    """The log of the mean density of normal distributions in two dimensions, one around each sample."""
    prediction = values([[[0.0, 0.0], [1.0, 1.0]], [[1.0, 2.0], [1.0, 1.5]]])
    truth, tau = torch.tensor([[0.5, 1.0], [1.0, 0.0]]), 4.0

    def density(sample, y):
        return math.prod(NormalDist(a, 1 / sqrt(tau)).pdf(b) for a, b in zip(sample, y, strict=True))

    of_inputs = [
        log(mean(density(sample[input].tolist(), truth[input].tolist()) for sample in prediction.samples))
        for input in range(2)
    ]
    got = regression_report(prediction, truth, tau)
    assert got.log_likelihood == pytest.approx(mean(of_inputs))
    assert got.standard_error["log_likelihood"] == pytest.approx(stdev(of_inputs) / sqrt(2))
    assert (got.tau, got.count) == (4.0, 2)


def test_the_error_is_that_of_the_mean():
    """The root of the mean squared error, over all numbers."""
    got = regression_report(values([[[0.0], [4.0]], [[2.0], [4.0]]]), torch.tensor([[4.0], [3.0]]), 1.0)

    assert got.rmse == pytest.approx(sqrt((9 + 1) / 2))


@pytest.mark.parametrize("missing", [math.nan, 5.0])
def test_samples_that_an_input_did_not_take_are_left_out(missing):
    """An input with two samples of three is evaluated by these two."""
    short, long = [[0.0], [2.0]], [[1.0], [3.0], [2.0]]
    prediction = values([[0.0, 1.0], [2.0, 3.0], [missing, 2.0]], num_samples=[2, 3])

    got = regression_report(prediction, torch.tensor([1.5, 1.5]), 2.0).log_likelihood

    alone = [regression_report(values(y), torch.tensor([1.5]), 2.0).log_likelihood for y in (short, long)]
    assert got == pytest.approx(mean(alone))


@pytest.mark.parametrize("tau", [None, 4.0])
def test_an_interval_is_that_of_a_normal_distribution(tau):
    """Its ends are quantiles, with the variance of the noise added."""
    prediction = values([[0.0], [1.0], [5.0]])
    noise = 0 if tau is None else 1 / tau

    low, high = interval(prediction, 0.8, tau)

    expected = NormalDist(2, sqrt(7 + noise))
    assert (low.item(), high.item()) == pytest.approx((expected.inv_cdf(0.1), expected.inv_cdf(0.9)))


def test_coverage_is_how_often_an_interval_holds_the_truth():
    """Where the noise has the stated precision, the fraction is the level of the interval."""
    count, tau = 20_000, 0.25
    generator = torch.Generator().manual_seed(0)
    prediction = values(torch.tensor([-1.0, 1.0]).view(2, 1).expand(2, count))
    truth = torch.randn(count, generator=generator) * sqrt(2 + 1 / tau)

    got = regression_report(prediction, truth, tau).coverage

    assert [item.level for item in got] == [0.5, 0.8, 0.9, 0.95]
    for item in got:
        assert abs(item.fraction - item.level) < 5 * sqrt(item.level * (1 - item.level) / count)
        assert item.width == pytest.approx(2 * NormalDist(0, sqrt(6)).inv_cdf((1 + item.level) / 2))


def test_the_precision_of_single_samples_is_that_of_their_errors():
    """With one sample the likeliest variance is the mean squared error: there is a formula."""
    prediction, truth = values([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[1.5, 2.0], [3.0, 7.0]])

    assert fit_tau(prediction, truth) == pytest.approx(4 / (0.25 + 9))


def test_no_other_precision_is_likelier():
    """No precision on a fine grid has a larger likelihood than the fitted one."""
    generator = torch.Generator().manual_seed(0)
    prediction = values(torch.randn(10, 50, 2, generator=generator))
    truth = torch.randn(50, 2, generator=generator)

    best = fit_tau(prediction, truth)

    at_best = regression_report(prediction, truth, best).log_likelihood
    others = [regression_report(prediction, truth, exp(step / 20)).log_likelihood for step in range(-100, 101)]
    assert at_best >= max(others)
    # With u = log(tau), the second derivative of the likelihood is at least -E, with E = exp(u) * (weighted squared
    # distance) / 2. At the maximum E is D / 2 = 1, it grows at most like exp(u), and the grid is 1 / 40 away at most.
    assert at_best - max(others) <= exp(1 / 40) / (2 * 40**2)


def test_the_higher_of_two_maxima_is_found():
    """One sample of a thousand is near: the likelihood has a low peak at 100,000 and a high one about 1."""
    far = torch.linspace(0.5, 1.5, 999).unsqueeze(1)
    prediction, truth = values(torch.cat([torch.tensor([[0.003]]), far])), torch.tensor([0.0])

    tau = fit_tau(prediction, truth)

    lower, at_tau, higher = (
        regression_report(prediction, truth, tau * factor).log_likelihood for factor in (0.99, 1, 1.01)
    )
    assert 0.5 < tau < 2
    assert lower < at_tau > higher


def test_samples_equal_to_the_truth_give_a_finite_precision():
    """Without any error the precision is the largest that float32 resolves."""
    prediction, truth = values([[1.0, 3.0], [1.0, 3.0]]), torch.tensor([1.0, 3.0])

    tau = fit_tau(prediction, truth)

    assert tau == pytest.approx(1 / (5 * EPS**2))
    assert math.isfinite(regression_report(prediction, truth, tau).log_likelihood)


@pytest.mark.parametrize("metric", [lambda r, y: regression_report(r, y, 1.0), fit_tau], ids=["report", "fit_tau"])
def test_samples_of_values_must_have_been_kept(metric):
    """Without them there is no likelihood, and the error says how to keep them."""
    prediction = replace(values([[1.0], [2.0]]), samples=None)

    with pytest.raises(ValueError, match="pass keep_samples=True to predict"):
        metric(prediction, torch.tensor([1.0]))


@pytest.mark.parametrize("metric", [lambda r, y: regression_report(r, y, 1.0), fit_tau], ids=["report", "fit_tau"])
def test_a_truth_of_another_shape_is_refused(metric):
    """Nothing is broadcast."""
    with pytest.raises(ValueError, match=r"y must be of shape \(2, 1\), got \(2,\)"):
        metric(values([[[1.0], [2.0]], [[1.0], [2.0]]]), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("tau", [0.0, -1.0, math.inf, math.nan])
def test_a_precision_is_positive_and_finite(tau):
    """The report and the interval refuse others, with the number."""
    prediction = values([[1.0], [2.0]])

    with pytest.raises(ValueError, match="tau must be larger than 0 and finite, got"):
        regression_report(prediction, torch.tensor([1.0]), tau)
    with pytest.raises(ValueError, match="tau must be larger than 0 and finite, got"):
        interval(prediction, tau=tau)


@pytest.mark.parametrize("level", [0, 1, 95, math.nan])
def test_a_level_is_a_probability(level):
    """A percentage is refused."""
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got"):
        interval(values([[1.0], [2.0]]), level)


def test_one_sample_has_no_interval():
    """It has no variance."""
    with pytest.raises(ValueError, match="samples must be at least 2 of each input, to have a variance, got 1"):
        interval(values([[1.0]]))


def test_a_prediction_of_values_has_the_metrics_as_methods():
    """The methods are the functions, with the same arguments."""
    prediction, truth = values([[0.0, 2.0], [1.0, 5.0]]), torch.tensor([1.0, 2.0])

    assert prediction.fit_tau(truth) == fit_tau(prediction, truth)
    assert prediction.report(truth, 3.0).to_dict() == regression_report(prediction, truth, 3.0).to_dict()
    assert [end.tolist() for end in prediction.interval(0.5, 2.0)] == [
        end.tolist() for end in interval(prediction, 0.5, 2.0)
    ]


def test_a_regression_report_is_plain_values_and_a_table():
    """JSON holds it, and each number and interval has a line."""
    report = regression_report(values([[0.0], [1.0]]), torch.tensor([0.5]), 1.0)

    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))

    assert plain["standard_error"] == {"log_likelihood": None}
    assert [item["level"] for item in plain["coverage"]] == [0.5, 0.8, 0.9, 0.95]
    lines = report.table().splitlines()
    assert lines[1].split() == ["rmse", "0.0000"]
    assert lines[-1].split() == ["95%", "100.00%", f"{2 * NormalDist(0, sqrt(1.5)).inv_cdf(0.975):.4g}"]


def test_the_formula_has_all_its_constants():
    """Samples equal to the truth have the density of a normal distribution at its mean."""
    prediction = values([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]])

    got = regression_report(prediction, torch.tensor([[1.0, 2.0, 3.0]]), 5.0).log_likelihood

    assert got == pytest.approx(3 / 2 * log(5 / (2 * pi)))
