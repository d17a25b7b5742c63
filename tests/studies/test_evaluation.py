"""What is measured on models, by our own metrics and those of torchmetrics."""

import contextlib
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dropkit import mc
from dropkit.studies.data import Data, Sizes, split
from dropkit.studies.evaluation import find_metric, loss, measure, measure_samples, predict, run
from dropkit.studies.inputs import as_data

N = 40
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
LOGITS = torch.randn(N, 3, generator=torch.Generator().manual_seed(1))
CLASSES = as_data((X, torch.arange(N) % 3))
VALUES = as_data((X, X.sum(1) * 100 + 5))

pytestmark = pytest.mark.usefixtures("torchvision")

OF_CLASSES = {
    "AUROC", "Accuracy", "AveragePrecision", "CalibrationError", "CohenKappa", "ExactMatch", "F1Score", "FBetaScore",
    "HammingDistance", "HingeLoss", "JaccardIndex", "MatthewsCorrCoef", "NegativePredictiveValue", "Precision",
    "Recall", "Specificity",
}  # fmt: skip
OF_VALUES = {
    "ConcordanceCorrCoef", "ExplainedVariance", "KendallRankCorrCoef", "LogCoshError", "MeanAbsoluteError",
    "MeanAbsolutePercentageError", "MeanSquaredError", "MeanSquaredLogError", "NormalizedRootMeanSquaredError",
    "PearsonCorrCoef", "R2Score", "RelativeSquaredError", "SpearmanCorrCoef", "SymmetricMeanAbsolutePercentageError",
    "TweedieDevianceScore", "WeightedMeanAbsolutePercentageError",
}  # fmt: skip


def test_every_metric_of_torchmetrics_works_or_is_refused_with_the_reason():
    """All multiclass and regression metrics with one number are taken; no other exception is raised for the others."""
    import torchmetrics

    for data, wanted in ((CLASSES, OF_CLASSES), (VALUES, OF_VALUES)):
        taken = set()
        for name in torchmetrics.__all__:
            with contextlib.suppress(ValueError):
                taken.add(find_metric(name, data, is_higher_better=True).name)
        assert wanted <= taken
        assert not taken & {"ConfusionMatrix", "ROC", "StatScores", "WordErrorRate", "BLEUScore", "CatMetric"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("Acuracy", CLASSES, "metric must be error, nll, ece, or a multiclass metric .*; did you mean Accuracy?"),
        ("rmse", CLASSES, "metric must be error, nll, ece"),
        ("functional", CLASSES, "metric must be error, nll, ece"),
        ("R2Score", CLASSES, "metric must be .*got 'R2Score': Unexpected keyword"),
        ("Specificity", CLASSES, "is_higher_better must be given for Specificity"),
    ],
)
def test_other_metrics_are_refused(name, data, message):
    """With what is near, or what torchmetrics says."""
    with pytest.raises(ValueError, match=message):
        find_metric(name, data)


def test_metrics_of_values_are_in_the_unit_of_the_data():
    """Predictions of standardised targets count as if nothing had been standardised."""
    parts = split(VALUES, Sizes(), torch.Generator().manual_seed(0))
    metric = find_metric("MeanAbsolutePercentageError", VALUES)

    measured = measure(torch.zeros(len(parts.test), 1), parts.test, VALUES, parts, metric)

    true, mean = parts.test.targets * parts.scale + parts.center, float(parts.center)
    assert measured["rmse"] == pytest.approx((true - mean).square().mean().sqrt().item(), rel=1e-5)
    assert measured["mae"] == pytest.approx((true - mean).abs().mean().item(), rel=1e-5)
    assert measured[metric.name] == pytest.approx(((true - mean) / true).abs().mean().item(), rel=1e-4)


def test_metrics_of_classes_are_those_of_the_definitions():
    """The fraction of wrong classes, and the mean negative logarithm of the true one's probability."""
    parts = split(CLASSES, Sizes(), torch.Generator().manual_seed(0))
    logits, targets = LOGITS[: len(parts.test)], parts.test.targets

    measured = measure(logits, parts.test, CLASSES, parts)

    assert measured["error"] == pytest.approx((logits.argmax(1) != targets).double().mean().item())
    assert measured["nll"] == pytest.approx(cross_entropy(logits, targets).item(), rel=1e-5)


@pytest.mark.parametrize("shape", [(), (5,)], ids=["one target", "five targets"])
def test_classes_may_come_last_or_second(shape):
    """(N, ..., classes) and (N, classes, ...) have the same loss."""
    targets = torch.randint(3, (N, *shape))
    data = Data(X, targets, ("a", "b", "c"))
    outputs = torch.randn(N, *shape, 3)

    expected = cross_entropy(outputs.reshape(-1, 3), targets.flatten())

    assert torch.equal(loss(outputs, targets, data), expected)
    assert torch.equal(loss(outputs.movedim(-1, 1), targets, data), expected)


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_one_number_is_the_logit_of_the_second_of_two_classes(shape):
    """The loss is that of binary cross entropy."""
    data, outputs = as_data((X, torch.arange(N) % 2)), LOGITS[:, 0].reshape(shape)

    expected = nn.functional.binary_cross_entropy_with_logits(LOGITS[:, 0], data.targets.float())

    assert loss(outputs, data.targets, data).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("data", "outputs", "message"),
    [
        (CLASSES, torch.zeros(N, 4), r"must be \(40, 3\), logits of 3 classes, got \(40, 4\)"),
        (VALUES, torch.zeros(N, 3), r"must be \(40,\), as the targets are numbers; .*integers, got \(40, 3\)"),
    ],
    ids=["classes", "values"],
)
def test_outputs_of_another_shape_are_refused(data, outputs, message):
    """In place of a message about a reshape."""
    with pytest.raises(ValueError, match="the model's output " + message):
        loss(outputs, data.targets, data)


def test_probabilities_are_refused():
    """The loss would apply the softmax a second time; log-probabilities are fine."""
    parts = split(CLASSES, Sizes(), torch.Generator())
    p = LOGITS[: len(parts.test)].softmax(1)

    measure(p.log(), parts.test, CLASSES, parts)

    with pytest.raises(ValueError, match="the model's output must be logits or log-probabilities"):
        measure(p, parts.test, CLASSES, parts)


class Returns(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.layer, self.wrap = nn.Linear(4, 3), wrap

    def forward(self, x):
        return self.wrap(self.layer(x))


class Output:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    "wrap", [lambda y: (y, 0), Output, lambda y: {"logits": y}], ids=["tuple", ".logits", "mapping"]
)
def test_outputs_are_read_as_by_mc_predict(wrap):
    """The first item of a tuple, the attribute or the entry of the name logits."""
    model = Returns(wrap)

    assert torch.equal(predict(model, X), model.layer(X))


def test_a_model_must_return_a_row_for_each_input():
    """A mean over the batch is no prediction."""
    with pytest.raises(ValueError, match="one row for each of 40 inputs"):
        run(Returns(lambda y: y.mean(0)), X)
    with pytest.raises(TypeError, match="the model must return a tensor"):
        run(Returns(str), X)


@pytest.mark.parametrize("data", [CLASSES, VALUES], ids=["classes", "values"])
def test_samples_of_a_model_without_spread_are_its_plain_prediction(data):
    """With dropout at a rate of nearly 0, the metrics of the mean of samples are those of evaluation mode."""
    width = 3 if data is CLASSES else 1
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(1e-9), nn.Linear(8, width))
    parts = split(data, Sizes(), torch.Generator())

    plain = measure(predict(model, parts.test.inputs), parts.test, data, parts)
    sampled = measure_samples(model, parts.test, data, parts, 3, seed=0)

    assert sampled == pytest.approx(plain, rel=1e-5)


def test_samples_of_several_targets():
    """(N, T) targets, with classes last or second."""
    tokens = torch.arange(120).view(40, 3) % 5
    data = as_data((tokens, tokens))
    embed = nn.Sequential(nn.Embedding(5, 8), nn.Dropout(0.5), nn.Linear(8, 5))
    parts = split(data, Sizes(), torch.Generator())

    last = measure_samples(embed, parts.test, data, parts, 4, seed=0)
    second = measure_samples(Moved(embed), parts.test, data, parts, 4, seed=0)

    assert last == pytest.approx(second)
    assert all(math.isfinite(value) for value in last.values())


class Moved(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).movedim(-1, 1)


def test_nothing_to_sample_is_an_error():
    """A setting that drops nothing has no Monte Carlo prediction."""
    parts = split(CLASSES, Sizes(), torch.Generator())

    with pytest.raises(mc.NothingToSample):
        measure_samples(nn.Linear(4, 3), parts.test, CLASSES, parts, 2, seed=0)
