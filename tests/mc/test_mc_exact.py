"""predict against enumeration: networks so small that all masks can be enumerated."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers.rounding import equal_but_for_rounding
from torch import Tensor, nn

from dropkit.mc.measures import ClassMeasures, SampleMeans, entropy, measures_of
from dropkit.mc.predict import from_samples, predict
from dropkit.mc.prediction import ClassPrediction

INPUTS, P, Q = 40, 0.5, 0.3
MEASURES = {name: measure for name, measure in measures_of(ClassMeasures).items() if measure.standard_error is not None}


class Small(nn.Module):
    """Two masks of four units each: 256 networks."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first, self.second, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)
            for layer in (self.first, self.second, self.head):
                layer.weight.data.mul_(2.5)
        self.masks: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self._drop(torch.relu(self.first(x)), 0, P)
        return self.head(self._drop(torch.tanh(self.second(h)), 1, Q))

    def _drop(self, h: Tensor, place: int, p: float) -> Tensor:
        if self.masks is None:
            return nn.functional.dropout(h, p, self.training)
        return h * self.masks[place] / (1 - p)


def every_network(model: Small, x: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs of all networks, and the probability of each."""
    outputs: list[Tensor] = []
    weights: list[float] = []
    for bits in itertools.product((0.0, 1.0), repeat=8):
        model.masks = torch.tensor(bits[:4]), torch.tensor(bits[4:])
        outputs.append(model(x))
        kept = [sum(bits[:4]), sum(bits[4:])]
        weights.append((1 - P) ** kept[0] * P ** (4 - kept[0]) * (1 - Q) ** kept[1] * Q ** (4 - kept[1]))
    model.masks = None
    return torch.stack(outputs).double(), torch.tensor(weights, dtype=torch.float64)


@pytest.fixture(scope="module")
def model() -> Small:
    return Small().eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(INPUTS, 3, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def exact(model: Small, x: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        outputs, weight = every_network(model, x)
    p = outputs.softmax(-1)

    def expected(value: Tensor) -> Tensor:
        return torch.einsum("t,t...->...", weight, value)

    mean = expected(p)
    one_hot = nn.functional.one_hot(p.argmax(-1), 3).double()
    formulas = {
        "mean": mean,
        "variance": expected((p - mean).square()),
        "entropy": entropy(mean),
        "expected_entropy": expected(entropy(p)),
        "mutual_information": entropy(mean) - expected(entropy(p)),
        "variation_ratio": 1 - expected(one_hot).amax(-1),
        "value": expected(outputs),
        "value variance": expected((outputs - expected(outputs)).square()),
    }
    # A measure without a formula above is compared with its own function of the exact means.
    summed = {"value": p, "square": p.square(), "sample entropy": entropy(p), "votes": one_hot}
    summed |= {name: measure.statistic(p) for name, measure in MEASURES.items() if measure.statistic is not None}
    means = SampleMeans(lambda name: expected(summed[name]))
    return {name: measure.function(means) for name, measure in MEASURES.items()} | formulas


# With so many samples the bias of plug-in entropies is a fraction of their error.
MANY = 4000


@pytest.fixture(scope="module", params=["input", "chunk", "shared"])
def many(request: pytest.FixtureRequest, model: Small, x: Tensor) -> tuple[str, ClassPrediction]:
    r = predict(model, x, MANY, masks=request.param, chunk=20, seed=11)
    assert isinstance(r, ClassPrediction)
    return request.param, r


def scores(estimate: Tensor, error: Tensor, exact: Tensor) -> Tensor:
    """The error of each estimate, in standard errors."""
    return ((estimate.double() - exact) / error.double()).flatten()


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_converge_to_the_enumeration(
    measure: str, many: tuple[str, ClassPrediction], exact: dict[str, Tensor]
) -> None:
    """Each estimate lies within its own standard error, and standard errors are of the right size."""
    masks, r = many
    z = scores(getattr(r, measure), r.standard_error[measure], exact[measure])

    assert z.abs().max() < 5
    if masks == "input":
        # The mean of n squared standard normal numbers has standard deviation sqrt(2 / n); three classes of one input
        # count as one, since they are correlated.
        assert abs(z.square().mean() - 1) < 5 * (2 / INPUTS) ** 0.5


@pytest.mark.parametrize("masks", ["input", "shared"])
def test_values_converge_to_the_enumeration(masks: Any, model: Small, x: Tensor, exact: dict[str, Tensor]) -> None:
    """Mean and variance of values converge, too."""
    r = predict(model, x, MANY, task="regression", masks=masks, seed=12)

    assert scores(r.mean, r.standard_error["mean"], exact["value"]).abs().max() < 5
    assert scores(r.variance, r.standard_error["variance"], exact["value variance"]).abs().max() < 5


@pytest.mark.parametrize("samples", [7, 10])
@pytest.mark.parametrize("masks", ["input", "chunk"])
@pytest.mark.parametrize("plan", ["iid", "stratified"])
def test_means_are_unbiased(
    plan: Any, masks: Any, samples: int, model: Small, x: Tensor, exact: dict[str, Tensor]
) -> None:
    """The average of many short runs converges to the enumeration, also where T (1 - p) is no integer."""
    runs = 60
    means = torch.stack(
        [predict(model, x, samples, masks=masks, plan=plan, chunk=5, seed=seed).mean for seed in range(runs)]
    ).double()

    z = scores(means.mean(0), means.std(0) / runs**0.5, exact["mean"])

    # Student's t with 59 degrees of freedom, 120 of them: beyond 6.2 once in 10**5.
    assert z.abs().max() < 6.2


def test_variances_are_unbiased(model: Small, x: Tensor, exact: dict[str, Tensor]) -> None:
    """Sums of squares are divided by one less than the number of samples."""
    runs = 150
    results = torch.stack([predict(model, x, 4, seed=seed).variance for seed in range(runs)]).double()

    assert scores(results.mean(0), results.std(0) / runs**0.5, exact["variance"]).abs().max() < 6


@pytest.mark.parametrize("samples", [2, 4, 10])
def test_stratified_variances_are_unbiased_where_main_effects_are_all(samples: int) -> None:
    """Sums of squares are divided by the number of samples, since the mean of the samples does not vary."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Dropout(), nn.Linear(16, 2)).eval(), torch.randn(30, 16)
    # With p = 1/2 each term of the sum is doubled or 0.
    exact = (x[:, None] * model[1].weight.detach()).square().sum(-1).double()

    results = torch.stack(
        [predict(model, x, samples, "regression", plan="stratified", seed=seed).variance for seed in range(60)]
    )
    ratio = results.double().sum((1, 2)) / exact.sum()

    # Student's t with 59 degrees of freedom.
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 60**0.5


def test_variances_are_accurate_where_samples_are_close_to_1() -> None:
    """They do not suffer from cancellation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 3)).eval()
    model[3].bias.data.copy_(torch.tensor([9.0, 0.0, 0.0]))

    samples = 50
    r = predict(model, torch.randn(200, 8), samples, seed=0, keep_samples=True)

    assert r.samples is not None
    assert r.mean[:, 0].median() > 0.999
    # What is summed are differences d from the first sample. Their mean is rounded `samples` times and enters squared,
    # the mean of their squares as often; eight more roundings are those of d, d**2 and the result. None moves a number
    # by more than eps / 2 of the mean of d**2.
    square = (r.samples.double() - r.samples[0]).square().sum(0) / (samples - 1)
    bound = (3 * samples + 8) * torch.finfo(torch.float32).eps / 2 * square
    assert ((r.variance - r.samples.double().var(0)).abs() <= bound).all()


def test_errors_do_not_depend_on_the_batch() -> None:
    """Standard errors are the same where outputs are so large that samples are summed in groups."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Dropout(), nn.Linear(8, 1000)).eval(), torch.randn(300, 8).round()
    # Small integers, so that matrix products are exact in whatever order torch sums them.
    for parameter in model.parameters():
        parameter.data.mul_(8).round_()

    for task in ("classification", "regression"):
        r, other = (predict(model, x, 50, task, seed=0, masks="input", batch_size=size) for size in (300, 20))

        for name, error in r.standard_error.items():
            # torch may sum the entropy of a sample in another order, which changes these two.
            if name not in ("expected_entropy", "mutual_information"):
                assert torch.equal(other.standard_error[name], error)


def test_the_jackknife_removes_most_of_the_bias_of_mutual_information(
    model: Small, x: Tensor, exact: dict[str, Tensor]
) -> None:
    """With few samples the plug-in estimate is too small; that of the jackknife much less so."""
    results = [predict(model, x, 10, seed=seed) for seed in range(200)]
    expected = exact["mutual_information"].mean()
    bias = torch.stack([r.mutual_information for r in results]).mean().double() - expected
    corrected = torch.stack([r.mutual_information_jackknife for r in results]).mean() - expected

    assert bias < 0
    assert abs(corrected) < abs(bias) / 3


def test_stratified_samples_need_half_the_passes_for_the_same_error(
    model: Small, x: Tensor, exact: dict[str, Tensor]
) -> None:
    """The error of the predictive mean of 20 stratified samples is below that of 40 independent ones."""

    def error(plan: Any, samples: int) -> float:
        off = [predict(model, x, samples, plan=plan, seed=seed).mean - exact["mean"] for seed in range(60)]
        return torch.stack(off).square().mean().sqrt().item()

    assert error("stratified", 20) < error("iid", 40)


@pytest.mark.parametrize("samples", [20, 50, 200, 1000])
@pytest.mark.parametrize(("plan", "most"), [("iid", 0.97), ("stratified", 1.0)])
def test_intervals_of_two_standard_errors_cover(
    plan: Any, most: float, samples: int, model: Small, x: Tensor, exact: dict[str, Tensor]
) -> None:
    """The estimate +- 1.96 standard errors covers the exact value in 95 % of 200 runs; stratified, in more.

    Each run is an input with masks of its own.
    """
    some, runs = 5, 200
    r = predict(model, x[:some].repeat(runs, 1), samples, masks="input", plan=plan, seed=21, batch_size=1000)

    for name in ("mean", "variance", "entropy", "expected_entropy", "mutual_information"):
        truth = exact[name][:some].repeat(runs, *(1,) * (exact[name].dim() - 1))
        covered = (getattr(r, name) - truth).abs() <= 1.96 * r.standard_error[name]
        assert 0.92 <= covered.double().mean() <= most, name


@pytest.mark.parametrize("samples", [200, 2000])
def test_the_errors_of_small_measures_are_not_those_of_rounding(samples: int) -> None:
    """The standard error of a tiny mutual information has the size of its spread over runs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3)).eval()
    model[3].weight.data.mul_(0.3)

    r = predict(model, torch.randn(6).repeat(100, 1), samples, masks="input", seed=0)

    for estimate in (r.mutual_information, r.mutual_information_jackknife):
        ratio = r.standard_error["mutual_information"].mean() / estimate.std()
        # The spread of 100 runs is known to 7 %, and errors of few samples are stated wider.
        assert 0.7 < ratio < 1.5


def test_the_error_of_a_fraction_of_votes_is_not_0_where_none_was_seen() -> None:
    """With 20 votes for one class, 1 in 20 may still be for another."""
    votes = torch.tensor([[[0.9, 0.1]]]).expand(20, 1, 2)

    r = from_samples(votes)

    assert r.variation_ratio == 0
    assert 0.05 < 1.96 * r.standard_error["variation_ratio"] < 0.25


def test_one_sample_has_no_error_and_no_variance(model: Small, x: Tensor) -> None:
    """They are NaN, and not 0."""
    r = predict(model, x, 1, seed=0)

    assert r.mean.isfinite().all()
    assert r.variance.isnan().all()
    assert all(error.isnan().all() for error in r.standard_error.values())


def test_joined_groups_give_the_same_measures(monkeypatch: pytest.MonkeyPatch, model: Small, x: Tensor) -> None:
    """Samples that would take too much memory are summed in groups; standard errors are then less accurate."""
    fine = predict(model, x, 400, seed=1)
    monkeypatch.setattr("dropkit.mc.jackknife._MEMORY", 1)
    coarse = predict(model, x, 400, seed=1)

    for name in ("mean", "variance", "entropy", "mutual_information", "variation_ratio"):
        # Both sum 400 samples.
        assert equal_but_for_rounding(getattr(fine, name), getattr(coarse, name), 400)
    ratio = (coarse.standard_error["mean"] / fine.standard_error["mean"]).square().mean()
    # Ten groups: the square of an error of nine degrees of freedom, over 40 inputs of three dependent classes.
    assert abs(ratio - 1) < 5 * (2 / 9 / INPUTS) ** 0.5
