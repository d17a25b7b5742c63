"""Metrics of classes: every number is that computed by hand, by brute force or by another library."""

import json
from itertools import pairwise, permutations
from math import log
from statistics import mean, stdev

import pytest
import torch
from helpers.predictions import classes, random_prediction, two_classes, values, with_measures

from dropkit.mc.metrics import classification_report

PROBABILITIES = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]]
TRUTH = torch.tensor([0, 1, 1, 2])
EPS = torch.finfo(torch.float32).eps


def test_the_numbers_are_those_computed_by_hand():
    """Error, log-likelihood, Brier score and overconfidence of four inputs."""
    report = classification_report(classes([PROBABILITIES]), TRUTH)

    assert report.count == 4
    assert report.error == 0.25
    assert report.nll == pytest.approx(-(log(0.8) + log(0.3) + 2 * log(0.7)) / 4)
    assert report.brier == pytest.approx((0.06 + 0.86 + 0.14 + 0.14) / 4)
    assert report.overconfidence == pytest.approx((0.8 + 0.6 + 0.7 + 0.7) / 4 - 0.75)


def test_standard_errors_are_those_of_a_mean_over_inputs():
    """The standard deviation over the inputs, divided by the root of their number."""
    errors = classification_report(classes([PROBABILITIES]), TRUTH).standard_error

    of_inputs = {
        "error": [0, 1, 0, 0],
        "nll": [-log(0.8), -log(0.3), -log(0.7), -log(0.7)],
        "brier": [0.06, 0.86, 0.14, 0.14],
        "overconfidence": [-0.2, 0.6, -0.3, -0.3],
    }
    assert errors == pytest.approx({name: stdev(numbers) / 2 for name, numbers in of_inputs.items()})


def test_the_labels_of_one_input_do_not_count_as_independent():
    """The standard errors do not shrink if each label is repeated seven times."""
    samples = torch.tensor([PROBABILITIES])

    once = classification_report(classes(samples), TRUTH)
    often = classification_report(classes(samples.unsqueeze(2).expand(1, 4, 7, 3)), TRUTH.unsqueeze(1).expand(4, 7))

    assert often.standard_error == pytest.approx(once.standard_error)
    assert (often.count, often.brier) == (28, pytest.approx(once.brier))


@pytest.mark.parametrize(("label", "brier"), [(0, 0.0), (1, 2.0)])
def test_the_brier_score_goes_from_0_to_2(label, brier):
    """Certain and right is 0, certain and wrong is 2."""
    assert classification_report(two_classes([1.0]), torch.tensor([label])).brier == brier


def test_a_class_of_probability_0_has_a_finite_likelihood():
    """It counts as the smallest normal number of float32."""
    report = classification_report(two_classes([1.0]), torch.tensor([1]))

    assert report.nll == pytest.approx(-log(torch.finfo(torch.float32).tiny))


def test_calibration_errors_are_those_computed_by_hand():
    """Half are overconfident by 0.1, half underconfident by 0.1: bins separate them, a single bin and the mean do not.

    In four adaptive bins of one label each, labels of equal confidence count as their mean.
    """
    prediction, truth = two_classes([0.9, 0.6, 0.9, 0.6]), torch.tensor([0, 1, 0, 0])

    ten, four, two, single = (classification_report(prediction, truth, bins) for bins in (10, 4, 2, 1))

    assert (ten.ece, four.ece_adaptive, two.ece_adaptive) == pytest.approx((0.1, 0.1, 0.1))
    assert (two.ece, single.ece, single.ece_adaptive, ten.overconfidence) == pytest.approx((0, 0, 0, 0), abs=EPS)


def test_overconfidence_has_a_sign():
    """Positive for an overconfident model, negative for an underconfident one."""
    prediction = two_classes([0.75, 0.75])

    assert classification_report(prediction, torch.tensor([1, 1])).overconfidence == 0.75
    assert classification_report(prediction, torch.tensor([0, 0])).overconfidence == -0.25


def test_a_bin_holds_its_lower_end_and_the_last_bin_both():
    """0.7 is in [0.7, 0.8); 1, and numbers that rounding puts above it, are in [0.9, 1]."""
    prediction = two_classes([0.7, 1.0, 1.0, 0.95])
    prediction = with_measures(prediction, confidence=torch.tensor([0.7, 1.0, 1.0000002, 0.95]))

    report = classification_report(prediction, torch.tensor([0, 0, 1, 1]), bins=10)

    assert [b.count for b in report.reliability] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 3]
    assert report.reliability[9].accuracy == pytest.approx(1 / 3)
    assert report.reliability[9].confidence == pytest.approx(2.95 / 3)
    assert report.ece == pytest.approx((0.3 + 3 * (2.95 - 1) / 3) / 4)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_bins_sum_to_the_calibration_error(bins):
    """The reliability diagram and the number agree."""
    report = classification_report(*random_prediction(), bins=bins)

    gaps = [b.count * abs(b.confidence - b.accuracy) for b in report.reliability if b.count]
    assert sum(b.count for b in report.reliability) == report.count
    assert sum(gaps) / report.count == pytest.approx(report.ece)


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.usefixtures("torchvision")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_torchmetrics_finds_the_same_calibration_error(bins):
    """Equal bins give an equal error, up to its sums of 200 numbers in float32."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    prediction, truth = random_prediction()

    expected = multiclass_calibration_error(prediction.mean, truth, 4, bins).item()

    assert classification_report(prediction, truth, bins).ece == pytest.approx(expected, abs=200 * EPS)


@pytest.mark.slow
def test_four_million_labels_are_counted_right():
    """Sums do not lose small numbers: confidence 0.9 and accuracy 0.7 are an error of 0.2, whatever the count."""
    count = 2**22
    prediction = two_classes([0.9])
    prediction = with_measures(
        prediction,
        mean=prediction.mean.unsqueeze(1).expand(1, count, 2),
        entropy=prediction.entropy.expand(1, count),
        confidence=prediction.confidence.repeat(1, count),
    )
    truth = (torch.arange(count).unsqueeze(0) % 10 >= 7).long()

    report = classification_report(prediction, truth)

    assert (report.ece, report.ece_adaptive) == pytest.approx((0.2, 0.2), abs=2 / count + EPS)


@pytest.mark.parametrize("bins", [1, 3, 7, 500])
def test_adaptive_bins_hold_equally_many(bins):
    """The error is that of labels sorted by confidence and cut into equal parts; more bins than labels stay empty."""
    prediction, truth = random_prediction(inputs=60)
    right = (prediction.label == truth).tolist()
    ordered = sorted(zip(prediction.confidence.tolist(), right, strict=True))
    larger = 60 % bins
    parts, first = [], 0
    for number in range(bins):
        last = first + 60 // bins + (number < larger)
        parts.append(ordered[first:last])
        first = last

    expected = sum(abs(sum(confidence - hit for confidence, hit in part)) for part in parts) / 60

    assert classification_report(prediction, truth, bins).ece_adaptive == pytest.approx(expected)


@pytest.mark.parametrize("by", ["entropy", "mutual_information", "variation_ratio", "confidence"])
def test_risk_is_the_error_of_the_least_uncertain(by):
    """At each coverage the mean error of the labels kept, over all orders of equally uncertain labels."""
    samples = torch.tensor([0.9, 0.6, 0.3]).view(1, 3, 1) * torch.tensor([1.0, 0.9]).view(2, 1, 1)
    prediction = classes(torch.cat([samples, 1 - samples], -1)[:, [0, 1, 0, 2, 1]])
    truth = torch.tensor([0, 1, 1, 0, 0])
    measure = getattr(prediction, by) * (-1 if by == "confidence" else 1)
    wrong = (prediction.label != truth).tolist()
    orders = [
        order
        for order in permutations(range(5))
        if all(measure[first] <= measure[second] for first, second in pairwise(order))
    ]

    got = classification_report(prediction, truth, by=by).risk_coverage

    expected = [mean(sum(wrong[label] for label in order[:kept]) / kept for order in orders) for kept in range(1, 6)]
    assert got.by == by
    assert got.coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert got.risk.tolist() == pytest.approx(expected)
    assert got.area == pytest.approx(mean(expected))
    assert [got.at(part) for part in (0, 0.4, 1)] == pytest.approx([expected[0], expected[1], expected[4]])


@pytest.mark.parametrize("by", ["entropy", "variation_ratio"])
def test_the_order_of_inputs_does_not_matter(by):
    """Equally uncertain inputs in another order give the same numbers."""
    samples = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])[torch.arange(60).view(3, 20) // 3 % 3]
    truth = torch.arange(20) % 2
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))

    first = classification_report(classes(samples), truth, 4, by).to_dict()
    second = classification_report(classes(samples[:, order]), truth[order], 4, by).to_dict()

    assert flat(first) == pytest.approx(flat(second))


def flat(tree):
    """The numbers of nested lists and dicts."""
    if isinstance(tree, (list, dict)):
        return [number for item in (tree.values() if isinstance(tree, dict) else tree) for number in flat(item)]
    return [] if tree is None or isinstance(tree, str) else [tree]


@pytest.mark.parametrize(
    ("y", "arguments", "kind", "message"),
    [
        ([0, 1, 1], {}, ValueError, r"y must be of shape \(4,\), got \(3,\)"),
        ([[0], [1], [1], [2]], {}, ValueError, r"y must be of shape \(4,\), got \(4, 1\)"),
        ([0.0, 1.0, 1.0, 2.0], {}, TypeError, "y must hold classes as integers, got torch.float32"),
        ([True, False, True, True], {}, TypeError, "y must hold classes as integers, got torch.bool"),
        ([0, 1, 3, 2], {}, ValueError, r"y must be in \[0, 3\), or -100 for labels to ignore, got 3"),
        ([0, 1, -1, 2], {}, ValueError, r"y must be in \[0, 3\), or -100 .*, got -1"),
        ([0, 1, 1, 2], {"bins": 0}, ValueError, "bins must be an integer of at least 1, got 0"),
        ([0, 1, 1, 2], {"by": "variance"}, ValueError, 'by must be "entropy", .* or "confidence", got variance'),
    ],
)
def test_a_wrong_argument_of_a_report_is_named(y, arguments, kind, message):
    """The error says what was wanted and what came."""
    with pytest.raises(kind, match=message):
        classification_report(classes([PROBABILITIES]), torch.tensor(y), **arguments)


def test_values_have_no_classification_report():
    """A prediction of values has no classification report."""
    with pytest.raises(TypeError, match="prediction must be a ClassPrediction, got ValuePrediction"):
        classification_report(values([[1.0], [2.0]]), torch.tensor([0]))


def test_a_report_is_plain_values():
    """JSON holds it without its extensions; what is not a number is None."""
    report = classification_report(two_classes([0.75]), torch.tensor([0]))

    got = json.loads(json.dumps(report.to_dict(), allow_nan=False))

    assert got["error"] == 0
    assert got["standard_error"]["error"] is None
    assert (got["reliability"][0]["count"], got["reliability"][0]["accuracy"]) == (0, None)
    assert got["risk_coverage"] == {"by": "entropy", "coverage": [1.0], "risk": [0.0], "area": 0.0}


def test_the_table_of_a_classification_report_shows_the_numbers():
    """One line for each number with its error, one for each bin that is not empty."""
    lines = classification_report(classes([PROBABILITIES]), TRUTH).table().splitlines()

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
    prediction, truth = random_prediction()

    got = prediction.report(truth, 7, "confidence")

    assert got.to_dict() == classification_report(prediction, truth, 7, "confidence").to_dict()
