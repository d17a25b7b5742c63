"""Trials of one seed are pairs: they share everything but the dropout, bit for bit."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dropkit.studies.data import Data, Sizes
from dropkit.studies.evaluation import ERROR, RMSE
from dropkit.studies.inputs import as_data
from dropkit.studies.kinds import KINDS
from dropkit.studies.setting import BASELINE, Setting
from dropkit.studies.training import Recipe, train
from dropkit.studies.trial import Trial

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
DATA = as_data((X, (X[:, 0] > 0).long()))
RECIPE = Recipe(epochs=3, batch_size=10, samples=2)
SETTINGS = [Setting(kind, 0.5) for kind in KINDS] + [Setting("dropout", 0.5, ("1",)), Setting("AlphaDropout", 0.9)]


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


class Spy:
    """A function that makes models, and records their initial weights and the batches they are trained with."""

    def __init__(self, make=network):
        self.make, self.batches, self.evaluated = make, [], []

    def __call__(self):
        self.model = self.make()
        self.weights = [weight.detach().clone() for weight in self.model.parameters()]
        self.model.register_forward_pre_hook(self._record)
        return self.model

    def _record(self, model, inputs):
        # Two inputs are the example by which places for dropout are found.
        if len(inputs[0]) > 2:
            (self.batches if model.training else self.evaluated).append(inputs[0])


def trained(setting, seed=0, recipe=RECIPE, make=network, data=DATA, metric=ERROR):
    spy = Spy(make)
    spy.outcome = train(Trial("net", setting, seed), spy, data, recipe, metric)
    return spy


def same(left, right):
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def without_seconds(outcome):
    return replace(outcome, seconds=0.0)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_trials_of_a_seed_share_split_weights_and_batches(setting):
    """And nothing else: the trained weights differ."""
    baseline, spy = trained(BASELINE), trained(setting)

    assert same(spy.weights, baseline.weights)
    assert same(spy.batches, baseline.batches)
    assert same(spy.evaluated[: len(baseline.evaluated)], baseline.evaluated)
    assert not same(list(spy.model.parameters()), list(baseline.model.parameters()))


@pytest.mark.parametrize("kind", [*KINDS, "AlphaDropout", "FeatureAlphaDropout"])
def test_rate_0_is_no_dropout(kind):
    """Bit for bit, in every metric, whatever the kind."""
    baseline, spy = trained(BASELINE), trained(Setting(kind, 0.0))

    assert same(list(spy.model.parameters()), list(baseline.model.parameters()))
    assert spy.outcome.metrics == baseline.outcome.metrics
    assert spy.outcome.curves == baseline.outcome.curves


def test_a_trial_can_be_repeated():
    """Whatever random numbers were used before; another seed gives other weights, another split and other batches."""
    first = trained(SETTINGS[0])
    torch.rand(3), random.random(), np.random.rand()

    again, other = trained(SETTINGS[0]), trained(SETTINGS[0], seed=1)

    assert without_seconds(first.outcome) == without_seconds(again.outcome)
    assert same(list(first.model.parameters()), list(again.model.parameters()))
    assert not same(first.weights, other.weights)
    assert not same(first.batches, other.batches)
    assert not torch.equal(torch.cat(first.batches[:4]).sort(0)[0], torch.cat(other.batches[:4]).sort(0)[0])


class DrawsMore(nn.Sequential):
    """Draws other random numbers while it is made, and numbers of NumPy for its weights."""

    def __init__(self):
        super().__init__(*network())
        torch.rand(random.randrange(10))
        with torch.no_grad():
            self[0].weight.copy_(torch.from_numpy(np.random.randn(8, 4)))


def test_what_a_model_draws_while_it_is_made_does_not_change_the_pair():
    """Each purpose has random numbers of its own, and those of NumPy and Python follow from the seed, too."""
    baseline, spy = trained(BASELINE, make=DrawsMore), trained(SETTINGS[0], make=DrawsMore)

    assert same(spy.weights, baseline.weights)
    assert same(spy.batches, trained(BASELINE).batches)


def test_a_trial_leaves_all_generators_and_threads_as_they_were():
    """Those of torch, NumPy and Python."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    random.seed(1), np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()

    trained(SETTINGS[0], make=DrawsMore)

    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_each_epoch_has_every_training_example_once():
    """In another order; validation and test examples are never trained on."""
    spy = trained(BASELINE)
    epochs = [torch.cat(spy.batches[i : i + 4]) for i in (0, 4, 8)]

    assert [len(batch) for batch in spy.batches] == [10, 10, 10, 6] * 3
    assert all(len(epoch.unique(dim=0)) == 36 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[0].sort(0)[0], epochs[1].sort(0)[0])


def test_one_example_that_remains_joins_the_last_batch():
    """A batch norm cannot be trained with one example."""
    with_norm = lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))  # noqa: E731

    spy = trained(Setting("dropout", 0.5), recipe=replace(RECIPE, batch_size=5), make=with_norm)

    assert [len(batch) for batch in spy.batches[:7]] == [5, 5, 5, 5, 5, 5, 6]
    assert spy.outcome.failure is None


def test_the_learning_rate_falls_linearly_to_zero(monkeypatch):
    """The first step has the rate of the recipe, and a step after the last would have 0."""
    rates, step = [], torch.optim.SGD.step

    def spying(optimizer, *arguments):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", spying)
    trained(BASELINE)

    assert rates == pytest.approx([RECIPE.learning_rate * (12 - i) / 12 for i in range(12)])


class Scripted(nn.Module):
    """A model whose logits are right by a margin that follows a script, one entry for each epoch."""

    script = (0.0, 1.0, 3.0, 2.0, 1.0, 5.0)

    def __init__(self):
        super().__init__()
        self.epoch, self.weight = nn.Parameter(torch.zeros(()), requires_grad=False), nn.Parameter(torch.zeros(()))

    def train(self, mode=True):
        if mode and not self.training:
            self.epoch += 1
        return super().train(mode)

    def forward(self, x):
        margin = self.script[int(self.epoch)]
        return torch.stack([torch.zeros(len(x)), margin * x[:, 0].sign()], 1) + 0 * self.weight


@pytest.mark.parametrize(
    ("planned", "patience", "epochs", "best"), [(5, None, 5, 4), (6, 1, 4, 2), (6, 2, 5, 2), (6, 3, 6, 5)]
)
def test_training_stops_when_the_validation_loss_has_not_fallen(planned, patience, epochs, best):
    """After `patience` epochs, and the weights are those of the best epoch."""
    recipe = Recipe(epochs=planned, patience=patience, samples=0)

    spy = trained(BASELINE, recipe=recipe, make=Scripted, data=replace(DATA, is_standardised=False))

    measured = spy.outcome.curves["epoch"]
    assert measured[-1] == epochs
    assert int(spy.model.epoch) == best


def test_metrics_are_those_of_eval_mode_on_each_part():
    """The classes that a model predicts for training mode do not count."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias, self.drop = nn.Parameter(torch.zeros(2)), nn.Dropout(0.0)

        def forward(self, x):
            return (torch.tensor([0.0, 1.0] if self.training else [1.0, 0.0]) + 0 * self.bias).expand(len(x), 2)

    parts = torch.tensor([0] * 20 + [1] * 20 + [2] * 20)
    data = Data(X, torch.tensor([0] * 15 + [1] * 5 + [1] * 20 + [0] * 20), ("0", "1"), parts=parts)

    metrics = trained(BASELINE, make=Constant, data=data).outcome.metrics

    assert [metrics[f"{part}_error"] for part in ("training", "validation", "test")] == [0.25, 1.0, 0.0]


def test_numbers_that_are_not_finite_are_a_failure():
    """A model that diverged has no error of 50 %."""
    diverged = trained(BASELINE, recipe=replace(RECIPE, learning_rate=1e30))

    assert "not finite" in diverged.outcome.failure
    assert diverged.outcome.failed


def test_values_are_reported_in_their_unit():
    """A network that predicts the mean is off by the standard deviation of the targets."""
    data = as_data((X, X[:, 0] * 1000 + 5e4))

    outcome = trained(
        SETTINGS[0], recipe=replace(RECIPE, learning_rate=1e-12), data=data, metric=RMSE,
        make=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(), _zero(nn.Linear(8, 1))),
    ).outcome  # fmt: skip

    assert outcome.metrics["test_rmse"] == pytest.approx(float(data.targets.std()), rel=0.5)
    assert outcome.metrics["mc_test_rmse"] == pytest.approx(outcome.metrics["test_rmse"], rel=1e-3)


def _zero(linear):
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


@pytest.mark.parametrize("limit", [0.01, 0])
def test_long_gradients_are_shortened(limit, monkeypatch):
    """No step has a gradient of a norm above `clip_norm`; without a limit they are longer."""
    norms, step = [], torch.optim.SGD.step

    def spy(optimizer, *arguments):
        gradients = [weight.grad for group in optimizer.param_groups for weight in group["params"]]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)

    trained(BASELINE, recipe=replace(RECIPE, clip_norm=limit))

    assert (max(norms) <= 0.01001) == (limit == 0.01)
    assert min(norms) > 0.001


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be an integer of at least 1"),
        ("batch_size", 2.5, "batch_size must be an integer"),
        ("optimizer", "adam", "optimizer must be sgd or adamw, got 'adam'"),
        ("learning_rate", -1, "learning_rate must be positive"),
        ("weight_decay", float("nan"), "weight_decay must be at least 0"),
        ("clip_norm", -1, "clip_norm must be at least 0, got -1"),
        ("patience", 0, "patience must be an integer"),
        ("samples", -1, "samples must be at least 0"),
        ("device", "cdua", "device must be one of torch, got 'cdua'"),
    ],
)
def test_bad_recipes_are_refused(field, value, message):
    """The error names the field."""
    with pytest.raises(ValueError, match=message):
        Recipe(**{field: value})


def test_sizes_are_those_of_the_recipe():
    """Numbers or fractions of all examples."""
    spy = trained(BASELINE, recipe=replace(RECIPE, sizes=Sizes(10, 0.5, 5)))

    assert len(torch.cat(spy.batches).unique(dim=0)) == 10
