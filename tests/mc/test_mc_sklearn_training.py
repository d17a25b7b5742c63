"""MCClassifier and MCRegressor: the network and its training."""
# ruff: noqa: N806 (scikit-learn's X)

import numpy as np
import pytest
from helpers.mc_estimators import EPS, predictions, quick, rows
from torch import nn

import dropkit
from dropkit.mc.sklearn import MCClassifier, MCRegressor


@pytest.mark.parametrize(("kind", "outputs"), [(MCClassifier, 3), (MCRegressor, 1)])
def test_the_module_is_made_for_the_rows(kind, outputs):
    """The factory gets the numbers of inputs and outputs, and its network predicts."""
    sizes = []

    def make(n_features, n_outputs):
        sizes.append((n_features, n_outputs))
        return nn.Sequential(nn.Linear(n_features, 5), nn.Dropout(0.5), nn.Linear(5, n_outputs))

    model = quick(kind, module=make).fit(*rows())

    assert set(sizes) == {(3, outputs)}
    assert isinstance(model.network_[1], nn.Dropout)
    assert not model.network_.training


def test_the_default_network_has_a_dropout_after_each_hidden_layer():
    """Widths and rate are those of the parameters."""
    network = quick(MCClassifier, hidden=(7, 4), p=0.3).fit(*rows()).network_

    assert [layer.out_features for layer in network if isinstance(layer, nn.Linear)] == [7, 4, 3]
    assert [layer.p for layer in network if isinstance(layer, dropkit.nn.Dropout)] == [0.3, 0.3]


def test_inputs_are_standardised():
    """A feature in other units, scaled by a power of two, gives the same bits."""
    X, y = rows()
    X = np.round(X * 1024) / 1024

    plain, other = quick(MCClassifier).fit(X, y), quick(MCClassifier).fit(X * 4096, y)

    assert np.array_equal(plain.predict_proba(X), other.predict_proba(X * 4096))
    inputs = other._inputs(X * 4096)
    # Sums of 60 numbers in float32, none of which exceeds the largest.
    bound = 60 * EPS * inputs.abs().max().item()
    assert inputs.mean(0).tolist() == pytest.approx([0, 0, 0], abs=bound)
    assert inputs.std(0, correction=0).tolist() == pytest.approx([1, 1, 1], abs=bound)


@pytest.mark.parametrize("name", ["epochs", "lr", "batch_size", "weight_decay"])
def test_each_parameter_of_the_training_matters(name):
    """Another value gives another network."""
    X, y = rows()
    other = {"epochs": 4, "lr": 0.02, "batch_size": 7, "weight_decay": 0.1}[name]

    assert not np.array_equal(
        predictions(quick(MCClassifier).fit(X, y), X), predictions(quick(MCClassifier, **{name: other}).fit(X, y), X)
    )


def test_every_row_is_used_once_an_epoch():
    """In batches of the given size, the last one smaller, in an order that changes."""
    batches = []

    class Recorded(nn.Sequential):
        def forward(self, input):
            if self.training:
                batches.append(input[:, 0].tolist())
            return super().forward(input)

    def make(n_features, n_outputs):
        return Recorded(nn.Dropout(0.5), nn.Linear(n_features, n_outputs))

    quick(MCClassifier, module=make, epochs=2, batch_size=25).fit(*rows())

    first, second = ([row for batch in batches[begin : begin + 3] for row in batch] for begin in (0, 3))
    assert [len(batch) for batch in batches] == [25, 25, 10] * 2
    assert len(set(first)) == 60
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize(("samples", "plan"), [(10, "iid"), (20, "iid"), (10, "stratified")])
def test_samples_and_plan_reach_the_passes(samples, plan):
    """The mean is that of `predict` with the same seed, shared masks, and these."""
    X, y = rows()
    model = quick(MCClassifier, samples=samples, plan=plan).fit(X, y)

    expected = dropkit.mc.predict(
        model.network_, model._inputs(X), samples, masks="shared", plan=plan, seed=model.seed_
    )

    assert np.array_equal(model.predict_proba(X), expected.mean.double().numpy())


def test_parameters_may_be_numbers_of_numpy():
    """As from a grid search over `np.arange`."""
    X, y = rows()

    model = quick(MCRegressor, epochs=np.int64(2), samples=np.int64(5), batch_size=np.int64(8), tau=np.float32(2))

    assert model.fit(X, y).predict_mc(X).num_samples == 5
