"""Quality of predictions: every number is that computed by hand, by brute force or by another library."""

import json
import math
import sys
from dataclasses import replace
from itertools import pairwise, permutations
from math import exp, log, pi, sqrt
from statistics import NormalDist, mean, stdev

import pytest
import torch
from helpers.predictions import classes

from dropkit.mc.metrics import class_quality, fit_tau, interval, ood, value_quality
from dropkit.mc.prediction import ValuePrediction

# It imports torchvision if it is there, which takes seconds and warns.
torchmetrics = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("torchvision"),
]

BELIEFS = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]]
TRUTH = torch.tensor([0, 1, 1, 2])
EPS = torch.finfo(torch.float32).eps


def two_classes(confidences):
    """A prediction of the first of two classes, with these confidences."""
    return classes([[[one, 1 - one] for one in confidences]])


def values(draws, samples=None):
    """A prediction with these draws, (T, N, ...), of which each input has so many."""
    draws = torch.as_tensor(draws, dtype=torch.float32)
    count = torch.full((draws.shape[1],), len(draws)) if samples is None else torch.tensor(samples)
    taken = [draws[:size, one] for one, size in enumerate(count)]
    return ValuePrediction(
        mean=torch.stack([one.mean(0) for one in taken]),
        variance=torch.stack([one.var(0, correction=min(1, len(one) - 1)) for one in taken]),
        standard_error={},
        samples=count,
        draws=draws,
        notes=(),
    )


def chance(inputs=200, count=4, samples=5, seed=0):
    """A prediction of chance, and a truth that it knows a little of."""
    generator = torch.Generator().manual_seed(seed)
    prediction = classes((2 * torch.randn(samples, inputs, count, generator=generator)).softmax(-1))
    return prediction, prediction.mean.multinomial(1, generator=generator).squeeze(1)


# Classes


def test_the_numbers_are_those_computed_by_hand():
    """Error, log-likelihood, Brier score and overconfidence of four inputs."""
    quality = class_quality(classes([BELIEFS]), TRUTH)

    assert quality.count == 4
    assert quality.error == 0.25
    assert quality.nll == pytest.approx(-(log(0.8) + log(0.3) + 2 * log(0.7)) / 4)
    assert quality.brier == pytest.approx((0.06 + 0.86 + 0.14 + 0.14) / 4)
    assert quality.overconfidence == pytest.approx((0.8 + 0.6 + 0.7 + 0.7) / 4 - 0.75)


def test_standard_errors_are_those_of_a_mean_over_inputs():
    """The deviation of the inputs, over the root of their number."""
    errors = class_quality(classes([BELIEFS]), TRUTH).standard_error

    each = {
        "error": [0, 1, 0, 0],
        "nll": [-log(0.8), -log(0.3), -log(0.7), -log(0.7)],
        "brier": [0.06, 0.86, 0.14, 0.14],
        "overconfidence": [-0.2, 0.6, -0.3, -0.3],
    }
    assert errors == pytest.approx({name: stdev(numbers) / 2 for name, numbers in each.items()})


def test_the_labels_of_one_input_do_not_count_as_independent():
    """An input whose label is repeated seven times tells as much as with one label."""
    draws = torch.tensor([BELIEFS])

    once = class_quality(classes(draws), TRUTH)
    often = class_quality(classes(draws.unsqueeze(2).expand(1, 4, 7, 3)), TRUTH.unsqueeze(1).expand(4, 7))

    assert often.standard_error == pytest.approx(once.standard_error)
    assert (often.count, often.brier) == (28, pytest.approx(once.brier))


@pytest.mark.parametrize(("label", "brier"), [(0, 0.0), (1, 2.0)])
def test_the_brier_score_goes_from_0_to_2(label, brier):
    """Sure and right is 0, sure and wrong is 2."""
    assert class_quality(two_classes([1.0]), torch.tensor([label])).brier == brier


def test_an_impossible_class_costs_what_the_least_float_does():
    """The log-likelihood of a label with probability 0 is finite: that of float32's least normal number."""
    quality = class_quality(two_classes([1.0]), torch.tensor([1]))

    assert quality.nll == pytest.approx(-log(torch.finfo(torch.float32).tiny))


def test_calibration_errors_are_those_computed_by_hand():
    """Half are 0.1 too sure, half 0.1 too unsure: bins tell them apart, a single bin and the mean do not.

    Four bins of one label each know that two labels were equally sure, and that one of them was right.
    """
    prediction, truth = two_classes([0.9, 0.6, 0.9, 0.6]), torch.tensor([0, 1, 0, 0])

    ten, four, two, one = (class_quality(prediction, truth, bins) for bins in (10, 4, 2, 1))

    assert (ten.ece, four.ece_adaptive, two.ece_adaptive) == pytest.approx((0.1, 0.1, 0.1))
    assert (two.ece, one.ece, one.ece_adaptive, ten.overconfidence) == pytest.approx((0, 0, 0, 0), abs=EPS)


def test_overconfidence_has_a_sign():
    """Positive where the model is too sure, negative where it is too unsure."""
    prediction = two_classes([0.75, 0.75])

    assert class_quality(prediction, torch.tensor([1, 1])).overconfidence == 0.75
    assert class_quality(prediction, torch.tensor([0, 0])).overconfidence == -0.25


def test_a_bin_holds_its_lower_end_and_the_last_one_both():
    """0.7 is in [0.7, 0.8); 1, and what rounding puts above it, is in [0.9, 1]."""
    quality = class_quality(two_classes([0.7, 1.0, 1.0000002, 0.95]), torch.tensor([0, 0, 1, 1]), bins=10)

    assert [one.count for one in quality.reliability] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 3]
    assert quality.reliability[9].accuracy == pytest.approx(1 / 3)
    assert quality.reliability[9].confidence == pytest.approx(2.95 / 3)
    assert quality.ece == pytest.approx((0.3 + 3 * (2.95 - 1) / 3) / 4)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_bins_sum_to_the_calibration_error(bins):
    """What the reliability diagram shows is what the number says."""
    quality = class_quality(*chance(), bins=bins)

    gaps = [one.count * abs(one.confidence - one.accuracy) for one in quality.reliability if one.count]
    assert sum(one.count for one in quality.reliability) == quality.count
    assert sum(gaps) / quality.count == pytest.approx(quality.ece)


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.usefixtures("torchvision")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_torchmetrics_finds_the_same_calibration_error(bins):
    """Equal bins give an equal error, up to its sums of 200 numbers in float32."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    prediction, truth = chance()

    expected = multiclass_calibration_error(prediction.mean, truth, 4, bins).item()

    assert class_quality(prediction, truth, bins).ece == pytest.approx(expected, abs=200 * EPS)


@pytest.mark.slow
def test_four_million_labels_are_counted_right():
    """Sums do not lose small numbers: 0.9 sure and 0.7 right is an error of 0.2, however many there are."""
    count = 2**22
    prediction = two_classes([0.9])
    prediction = replace(
        prediction,
        mean=prediction.mean.unsqueeze(1).expand(1, count, 2),
        entropy=prediction.entropy.expand(1, count),
    )
    truth = (torch.arange(count).unsqueeze(0) % 10 >= 7).long()

    quality = class_quality(prediction, truth)

    assert (quality.ece, quality.ece_adaptive) == pytest.approx((0.2, 0.2), abs=2 / count + EPS)


@pytest.mark.parametrize("bins", [1, 3, 7, 500])
def test_adaptive_bins_hold_equally_many(bins):
    """The error is that of sorted labels, dealt out from the least sure; more bins than labels are left empty."""
    prediction, truth = chance(inputs=60)
    right = (prediction.label == truth).tolist()
    ordered = sorted(zip(prediction.confidence.tolist(), right, strict=True))
    long = 60 % bins
    parts, first = [], 0
    for one in range(bins):
        last = first + 60 // bins + (one < long)
        parts.append(ordered[first:last])
        first = last

    expected = sum(abs(sum(confidence - hit for confidence, hit in part)) for part in parts) / 60

    assert class_quality(prediction, truth, bins).ece_adaptive == pytest.approx(expected)


@pytest.mark.parametrize("by", ["entropy", "mutual_information", "variation_ratio", "confidence"])
def test_risk_is_the_error_of_the_surest(by):
    """At each coverage, over orders of all that are equally sure, the mean error of those that are kept."""
    draws = torch.tensor([0.9, 0.6, 0.3]).view(1, 3, 1) * torch.tensor([1.0, 0.9]).view(2, 1, 1)
    prediction = classes(torch.cat([draws, 1 - draws], -1)[:, [0, 1, 0, 2, 1]])
    truth = torch.tensor([0, 1, 1, 0, 0])
    measure = getattr(prediction, by) * (-1 if by == "confidence" else 1)
    wrong = (prediction.label != truth).tolist()
    orders = [
        order for order in permutations(range(5)) if all(measure[one] <= measure[two] for one, two in pairwise(order))
    ]

    got = class_quality(prediction, truth, by=by).risk_coverage

    expected = [mean(sum(wrong[one] for one in order[:kept]) / kept for order in orders) for kept in range(1, 6)]
    assert got.by == by
    assert got.coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert got.risk.tolist() == pytest.approx(expected)
    assert got.area == pytest.approx(mean(expected))
    assert [got.at(part) for part in (0, 0.4, 1)] == pytest.approx([expected[0], expected[1], expected[4]])


@pytest.mark.parametrize("by", ["entropy", "variation_ratio"])
def test_the_order_of_inputs_does_not_matter(by):
    """Inputs that are equally sure come in any order, and every number stays."""
    draws = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])[torch.arange(60).view(3, 20) // 3 % 3]
    truth = torch.arange(20) % 2
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))

    first = class_quality(classes(draws), truth, 4, by).to_dict()
    second = class_quality(classes(draws[:, order]), truth[order], 4, by).to_dict()

    assert flat(first) == pytest.approx(flat(second))


def flat(tree):
    """The numbers of nested lists and dicts."""
    if isinstance(tree, (list, dict)):
        return [number for one in (tree.values() if isinstance(tree, dict) else tree) for number in flat(one)]
    return [] if tree is None or isinstance(tree, str) else [tree]


@pytest.mark.parametrize(
    ("y", "arguments", "kind", "message"),
    [
        ([0, 1, 1], {}, ValueError, r"y must be of shape \(4,\), got \(3,\)"),
        ([[0], [1], [1], [2]], {}, ValueError, r"y must be of shape \(4,\), got \(4, 1\)"),
        ([0.0, 1.0, 1.0, 2.0], {}, TypeError, "y must hold classes as integers, got torch.float32"),
        ([True, False, True, True], {}, TypeError, "y must hold classes as integers, got torch.bool"),
        ([0, 1, 3, 2], {}, ValueError, r"y must be in \[0, 3\), got 3"),
        ([0, 1, -1, 2], {}, ValueError, r"y must be in \[0, 3\), got -1"),
        ([0, 1, 1, 2], {"bins": 0}, ValueError, "bins must be an integer of at least 1, got 0"),
        ([0, 1, 1, 2], {"by": "variance"}, ValueError, 'by must be "entropy", .* or "confidence", got variance'),
    ],
)
def test_a_wrong_argument_is_named(y, arguments, kind, message):
    """The error says what was wanted and what came."""
    with pytest.raises(kind, match=message):
        class_quality(classes([BELIEFS]), torch.tensor(y), **arguments)


def test_values_are_no_classes():
    """A regression has no class quality."""
    with pytest.raises(TypeError, match="prediction must be a ClassPrediction, got ValuePrediction"):
        class_quality(values([[1.0], [2.0]]), torch.tensor([0]))


def test_a_report_is_plain_values():
    """JSON holds it without its extensions; what is not a number is None."""
    quality = class_quality(two_classes([0.75]), torch.tensor([0]))

    got = json.loads(json.dumps(quality.to_dict(), allow_nan=False))

    assert got["error"] == 0
    assert got["standard_error"]["error"] is None
    assert (got["reliability"][0]["count"], got["reliability"][0]["accuracy"]) == (0, None)
    assert got["risk_coverage"] == {"by": "entropy", "coverage": [1.0], "risk": [0.0], "area": 0.0}


def test_a_table_shows_the_numbers():
    """One line for each number with its error, one for each bin that is not empty."""
    lines = class_quality(classes([BELIEFS]), TRUTH).table().splitlines()

    assert lines[0].split() == ["labels", "4"]
    assert lines[1].split() == ["error", "0.2500", "+-", "0.2500"]
    assert [" ".join(line.split()) for line in lines[9:12]] == [
        "error of the surest 50% 0.0000",
        "error of the surest 80% 0.0000",
        "error of the surest 90% 0.2500",
    ]
    assert lines[-3:] == [
        " 0.600 to 0.667         1      0.6000    0.0000",
        " 0.667 to 0.733         2      0.7000    1.0000",
        " 0.800 to 0.867         1      0.8000    1.0000",
    ]


def test_a_prediction_reports_on_itself():
    """The method is the function, with the same arguments."""
    prediction, truth = chance()

    got = prediction.report(truth, 7, "confidence")

    assert got.to_dict() == class_quality(prediction, truth, 7, "confidence").to_dict()


# Values


def test_the_likelihood_is_that_of_a_mixture():
    """The log of the mean density over the draws, each a normal distribution around it in two dimensions."""
    prediction = values([[[0.0, 0.0], [1.0, 1.0]], [[1.0, 2.0], [1.0, 1.5]]])
    truth, tau = torch.tensor([[0.5, 1.0], [1.0, 0.0]]), 4.0

    def density(draw, y):
        return math.prod(NormalDist(a, 1 / sqrt(tau)).pdf(b) for a, b in zip(draw, y, strict=True))

    each = [
        log(mean(density(draw[one].tolist(), truth[one].tolist()) for draw in prediction.draws)) for one in range(2)
    ]
    got = value_quality(prediction, truth, tau)
    assert got.log_likelihood == pytest.approx(mean(each))
    assert got.standard_error["log_likelihood"] == pytest.approx(stdev(each) / sqrt(2))
    assert (got.tau, got.count) == (4.0, 2)


def test_the_error_is_that_of_the_mean():
    """The root of the mean squared error, over all numbers."""
    got = value_quality(values([[[0.0], [4.0]], [[2.0], [4.0]]]), torch.tensor([[4.0], [3.0]]), 1.0)

    assert got.rmse == pytest.approx(sqrt((9 + 1) / 2))


@pytest.mark.parametrize("missing", [math.nan, 5.0])
def test_draws_that_an_input_did_not_take_are_left_out(missing):
    """An input with two samples of three is judged by these two."""
    short, long = [[0.0], [2.0]], [[1.0], [3.0], [2.0]]
    prediction = values([[0.0, 1.0], [2.0, 3.0], [missing, 2.0]], samples=[2, 3])

    got = value_quality(prediction, torch.tensor([1.5, 1.5]), 2.0).log_likelihood

    one, other = (value_quality(values(draws), torch.tensor([1.5]), 2.0).log_likelihood for draws in (short, long))
    assert got == pytest.approx((one + other) / 2)


@pytest.mark.parametrize("tau", [None, 4.0])
def test_an_interval_is_that_of_a_normal_distribution(tau):
    """Its ends are quantiles, with the variance of the noise added."""
    prediction = values([[0.0], [1.0], [5.0]])
    noise = 0 if tau is None else 1 / tau

    low, high = interval(prediction, 0.8, tau)

    expected = NormalDist(2, sqrt(7 + noise))
    assert (low.item(), high.item()) == pytest.approx((expected.inv_cdf(0.1), expected.inv_cdf(0.9)))


def test_coverage_is_how_often_an_interval_holds():
    """What is as noisy as it is said to be is held as often as it should be."""
    count, tau = 20_000, 0.25
    generator = torch.Generator().manual_seed(0)
    prediction = values(torch.tensor([-1.0, 1.0]).view(2, 1).expand(2, count))
    truth = torch.randn(count, generator=generator) * sqrt(2 + 1 / tau)

    got = value_quality(prediction, truth, tau).coverage

    assert [one.level for one in got] == [0.5, 0.8, 0.9, 0.95]
    for one in got:
        assert abs(one.fraction - one.level) < 5 * sqrt(one.level * (1 - one.level) / count)
        assert one.width == pytest.approx(2 * NormalDist(0, sqrt(6)).inv_cdf((1 + one.level) / 2))


def test_the_precision_of_single_draws_is_that_of_their_errors():
    """With one sample the likeliest variance is the mean squared error: there is a formula."""
    prediction, truth = values([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[1.5, 2.0], [3.0, 7.0]])

    assert fit_tau(prediction, truth) == pytest.approx(4 / (0.25 + 9))


def test_no_other_precision_is_likelier():
    """Of many on a fine grid none beats the one that is found."""
    generator = torch.Generator().manual_seed(0)
    prediction = values(torch.randn(10, 50, 2, generator=generator))
    truth = torch.randn(50, 2, generator=generator)

    best = fit_tau(prediction, truth)

    at_best = value_quality(prediction, truth, best).log_likelihood
    others = [value_quality(prediction, truth, exp(one / 20)).log_likelihood for one in range(-100, 101)]
    assert at_best >= max(others)
    assert at_best == pytest.approx(max(others), abs=1e-2)


def test_the_higher_of_two_hills_is_found():
    """One draw of a thousand is near: the likelihood has a low peak at 100,000 and a high one about 1."""
    far = torch.linspace(0.5, 1.5, 999).unsqueeze(1)
    prediction, truth = values(torch.cat([torch.tensor([[0.003]]), far])), torch.tensor([0.0])

    tau = fit_tau(prediction, truth)

    lower, there, higher = (value_quality(prediction, truth, tau * one).log_likelihood for one in (0.99, 1, 1.01))
    assert 0.5 < tau < 2
    assert lower < there > higher


def test_draws_that_are_the_truth_give_a_finite_precision():
    """Where there is no error at all, the precision is what float32 can tell."""
    prediction, truth = values([[1.0, 3.0], [1.0, 3.0]]), torch.tensor([1.0, 3.0])

    tau = fit_tau(prediction, truth)

    assert tau == pytest.approx(1 / (5 * EPS**2))
    assert math.isfinite(value_quality(prediction, truth, tau).log_likelihood)


@pytest.mark.parametrize("judge", [lambda r, y: value_quality(r, y, 1.0), fit_tau])
def test_draws_must_have_been_kept(judge):
    """Without them there is no likelihood, and the error says how to keep them."""
    prediction = replace(values([[1.0], [2.0]]), draws=None)

    with pytest.raises(ValueError, match="pass keep_samples=True to predict"):
        judge(prediction, torch.tensor([1.0]))


@pytest.mark.parametrize("judge", [lambda r, y: value_quality(r, y, 1.0), fit_tau])
def test_a_truth_of_another_shape_is_no_truth(judge):
    """Nothing is broadcast."""
    with pytest.raises(ValueError, match=r"y must be of shape \(2, 1\), got \(2,\)"):
        judge(values([[[1.0], [2.0]], [[1.0], [2.0]]]), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("tau", [0.0, -1.0, math.inf, math.nan])
def test_a_precision_is_positive_and_finite(tau):
    """Others are named, by the report and by the interval."""
    prediction = values([[1.0], [2.0]])

    with pytest.raises(ValueError, match="tau must be larger than 0 and finite, got"):
        value_quality(prediction, torch.tensor([1.0]), tau)
    with pytest.raises(ValueError, match="tau must be larger than 0 and finite, got"):
        interval(prediction, tau=tau)


@pytest.mark.parametrize("level", [0, 1, 95, math.nan])
def test_a_level_is_a_probability(level):
    """A percentage is refused."""
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got"):
        interval(values([[1.0], [2.0]]), level)


def test_one_sample_has_no_interval():
    """It has no variance, and an interval without width would be a lie."""
    with pytest.raises(ValueError, match="samples must be at least 2 of each input, to have a variance, got 1"):
        interval(values([[1.0]]))


def test_values_report_on_themselves():
    """The methods are the functions, with the same arguments."""
    prediction, truth = values([[0.0, 2.0], [1.0, 5.0]]), torch.tensor([1.0, 2.0])

    assert prediction.fit_tau(truth) == fit_tau(prediction, truth)
    assert prediction.report(truth, 3.0).to_dict() == value_quality(prediction, truth, 3.0).to_dict()
    assert [one.tolist() for one in prediction.interval(0.5, 2.0)] == [
        one.tolist() for one in interval(prediction, 0.5, 2.0)
    ]


def test_a_report_on_values_is_plain_and_a_table():
    """JSON holds it, and each number and interval has a line."""
    quality = value_quality(values([[0.0], [1.0]]), torch.tensor([0.5]), 1.0)

    plain = json.loads(json.dumps(quality.to_dict(), allow_nan=False))

    assert plain["standard_error"] == {"log_likelihood": None}
    assert [one["level"] for one in plain["coverage"]] == [0.5, 0.8, 0.9, 0.95]
    lines = quality.table().splitlines()
    assert lines[1].split() == ["rmse", "0.0000"]
    assert lines[-1].split() == ["95%", "100.00%", f"{2 * NormalDist(0, sqrt(1.5)).inv_cdf(0.975):.4g}"]


# Inputs from elsewhere


def surprised(*measures):
    """A prediction whose measures of uncertainty are all these, one for each input."""
    one = torch.tensor(measures)
    return replace(two_classes([0.5] * len(measures)), entropy=one, mutual_information=one, variation_ratio=one)


class TestOod:
    pytestmark = torchmetrics

    @pytest.mark.parametrize(
        ("inside", "outside", "expected"),
        [
            ((0.1, 0.2), (0.3, 0.4), (1, 1, 0)),
            ((0.3, 0.4), (0.1, 0.2), (0, (1 / 3 + 2 / 4) / 2, 1)),
            ((0.2, 0.2, 0.2), (0.2,), (0.5, 0.25, 1)),
            ((0.1, 0.3), (0.2, 0.4), (0.75, (1 + 2 / 3) / 2, 0.5)),
            # Of 20 outside one may be missed.
            ((0.1, 0.2, 0.5), (0.0,) + (0.3,) * 19, (19 * 2 / 60, None, 1 / 3)),
        ],
    )
    def test_the_numbers_are_those_computed_by_hand(self, inside, outside, expected):
        """Pairs in the right order, precision where one from elsewhere is found, and what is rejected wrongly."""
        got = ood(surprised(*inside), surprised(*outside))

        assert (got.auroc, got.fpr95) == pytest.approx((expected[0], expected[2]))
        assert expected[1] is None or got.aupr == pytest.approx(expected[1])

    @pytest.mark.parametrize("by", ["entropy", "mutual_information", "variation_ratio", "confidence"])
    def test_the_area_is_the_fraction_of_pairs_in_order(self, by):
        """With more uncertainty, or less confidence, an input is more likely from elsewhere."""
        (inside, _), (outside, _) = chance(40, samples=2, seed=0), chance(30, samples=3, seed=1)
        here, there = (getattr(one, by) * (-1 if by == "confidence" else 1) for one in (inside, outside))
        pairs = [1.0 if two > one else 0.5 * (two == one).item() for one in here for two in there]

        assert ood(inside, outside, by).auroc == pytest.approx(mean(pairs))

    def test_large_measures_are_told_apart(self):
        """Entropies may exceed 1: they are ranked, not taken for logits, of which float32 cannot tell 20 from 21."""
        assert ood(surprised(20.0), surprised(21.0), "entropy").auroc == 1

    def test_a_prediction_compares_itself_with_another(self):
        """The method is the function, and the other is from elsewhere."""
        (inside, _), (outside, _) = chance(40, seed=0), chance(30, seed=1)

        assert inside.ood(outside) == ood(inside, outside)
        assert inside.ood(outside, "entropy") == ood(inside, outside, "entropy")


@pytest.mark.parametrize(
    ("library", "call"),
    [
        ("torchmetrics", lambda: ood(surprised(0.1), surprised(0.2))),
        ("scipy.optimize", lambda: fit_tau(values([[1.0]]), torch.tensor([0.0]))),
    ],
)
def test_what_is_missing_says_what_to_install(library, call, monkeypatch):
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.functional", None)

    with pytest.raises(ImportError, match=r'pip install "dropkit\[mc\]"'):
        call()


def test_the_formula_has_all_its_constants():
    """A draw that is the truth has the density of a normal distribution at its middle."""
    prediction = values([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]]])

    got = value_quality(prediction, torch.tensor([[1.0, 2.0, 3.0]]), 5.0).log_likelihood

    assert got == pytest.approx(3 / 2 * log(5 / (2 * pi)))
