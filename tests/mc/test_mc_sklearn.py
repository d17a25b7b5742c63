"""MCClassifier and MCRegressor keep scikit-learn's contract, and predict what many passes of their network do."""
# ruff: noqa: N803, N806 (scikit-learn's X)

import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import nn

import dropkit
from dropkit.mc.sklearn import MCClassifier, MCRegressor

EPS = np.finfo(np.float32).eps

BOTH = [MCClassifier, MCRegressor]
# Checks that do not apply, and why.
LEFT_OUT = {
    "check_array_api_input": "there is no array API to check; it skips itself",
    "check_methods_sample_order_invariance": "asks for more digits than float32 has; with fewer it is a test below",
    "check_methods_subset_invariance": "asks for more digits than float32 has; with fewer it is a test below",
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks this small lose much when another process wants the core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def called(check):
    return getattr(check, "func", check).__name__


CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{called(check)}-{number}")
    for kind in BOTH
    for number, (estimator, check) in enumerate(estimator_checks_generator(kind()))
    if called(check) not in LEFT_OUT
]


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learn_accepts_it(estimator, check):
    """Every check of scikit-learn's that applies holds with the defaults."""
    check(estimator)


def rows(count=60, seed=0):
    """Inputs, and targets that both kinds can learn."""
    X = np.random.RandomState(seed).randn(count, 3)
    return X, (X[:, 0] > 0) + (X[:, 1] > 0).astype(int)


def quick(kind, **parameters):
    return kind(**{"hidden": (20,), "epochs": 3, "samples": 10, "random_state": 0, **parameters})


def said(model, X):
    """All numbers that an estimator predicts."""
    return model.predict_proba(X) if isinstance(model, MCClassifier) else np.stack(model.predict(X, return_std=True))


# Chance


@pytest.mark.parametrize("kind", BOTH)
def test_equal_seeds_give_equal_bits(kind):
    """Training and passes follow from `random_state`, whatever the state of torch's and numpy's generators."""
    X, y = rows()

    first = quick(kind).fit(X, y)
    torch.manual_seed(5)
    np.random.seed(5)
    second, other = quick(kind).fit(X, y), quick(kind, random_state=1).fit(X, y)

    assert np.array_equal(said(first, X), said(second, X))
    assert np.array_equal(said(first, X), said(first, X))
    assert not np.array_equal(said(first, X), said(other, X))


@pytest.mark.parametrize("kind", BOTH)
def test_no_generator_is_touched(kind):
    """With a seed, neither torch's generator nor numpy's moves."""
    X, y = rows()
    of_torch, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()

    said(quick(kind).fit(X, y), X)

    assert torch.equal(torch.get_rng_state(), of_torch)
    assert np.array_equal(np.random.get_state()[1], of_numpy)


@pytest.mark.parametrize("kind", BOTH)
def test_without_a_seed_numpy_decides(kind):
    """As everywhere in scikit-learn: `random_state=None` draws from numpy's generator."""
    X, y = rows()
    seeds = []
    for start in (1, 1, 2):
        np.random.seed(start)
        seeds.append(quick(kind, random_state=None).fit(X, y).seed_)

    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize("kind", BOTH)
def test_a_row_is_predicted_as_if_alone(kind):
    """Its prediction depends on no other row, but for the order in which float32 sums up the samples."""
    X, y = rows()
    model = quick(kind).fit(X, y)
    order = np.random.RandomState(1).permutation(len(X))

    whole, shuffled = said(model, X), said(model, X[order])
    alone = np.concatenate([said(model, X[one : one + 1]) for one in range(len(X))], 0 if kind is MCClassifier else 1)

    bound = {"rtol": 0, "atol": np.abs(whole).max() * model.samples * EPS}
    np.testing.assert_allclose(shuffled, whole[order] if kind is MCClassifier else whole[:, order], **bound)
    np.testing.assert_allclose(alone, whole, **bound)


def test_masks_of_their_own_are_had_for_the_asking():
    """With masks="input" equal rows at different places are predicted differently, by default equally."""
    X, y = rows()
    twice = np.repeat(X[:1], 2, 0)

    shared = quick(MCClassifier).fit(X, y).predict_mc(twice).mean
    own = quick(MCClassifier, masks="input").fit(X, y).predict_mc(twice).mean

    assert (shared[0] - shared[1]).abs().max() < 10 * EPS
    assert (own[0] - own[1]).abs().max() > 100 * EPS


# The network


@pytest.mark.parametrize(("kind", "outputs"), [(MCClassifier, 3), (MCRegressor, 1)])
def test_the_module_is_made_for_the_rows(kind, outputs):
    """The factory gets the numbers of inputs and outputs, and its network is the one that predicts."""
    asked = []

    def make(n_features, n_outputs):
        asked.append((n_features, n_outputs))
        return nn.Sequential(nn.Linear(n_features, 5), nn.Dropout(0.5), nn.Linear(5, n_outputs))

    model = quick(kind, module=make).fit(*rows())

    assert set(asked) == {(3, outputs)}
    assert isinstance(model.network_[1], nn.Dropout)
    assert not model.network_.training


def test_the_default_network_has_a_dropout_after_each_hidden_layer():
    """Widths and rate are those that were asked for."""
    network = quick(MCClassifier, hidden=(7, 4), p=0.3).fit(*rows()).network_

    assert [one.out_features for one in network if isinstance(one, nn.Linear)] == [7, 4, 3]
    assert [one.p for one in network if isinstance(one, dropkit.nn.Dropout)] == [0.3, 0.3]


def test_inputs_are_standardised():
    """A feature in other units, shifted and scaled by powers of two, changes not one bit."""
    X, y = rows()
    X = np.round(X * 1024) / 1024

    plain, other = quick(MCClassifier).fit(X, y), quick(MCClassifier).fit(X * 4096, y)

    assert np.array_equal(plain.predict_proba(X), other.predict_proba(X * 4096))
    inputs = other._inputs(X * 4096)
    assert inputs.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert inputs.std(0, correction=0).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("name", ["epochs", "lr", "batch_size", "weight_decay"])
def test_each_parameter_of_the_training_matters(name):
    """Another value gives another network."""
    X, y = rows()
    other = {"epochs": 4, "lr": 0.02, "batch_size": 7, "weight_decay": 0.1}[name]

    assert not np.array_equal(
        said(quick(MCClassifier).fit(X, y), X), said(quick(MCClassifier, **{name: other}).fit(X, y), X)
    )


def test_every_row_is_visited_once_an_epoch():
    """In batches of the size that was asked for, the last of what is left, in an order that changes."""
    batches = []

    class Watched(nn.Sequential):
        def forward(self, input):
            if self.training:
                batches.append(input[:, 0].tolist())
            return super().forward(input)

    def make(n_features, n_outputs):
        return Watched(nn.Dropout(0.5), nn.Linear(n_features, n_outputs))

    quick(MCClassifier, module=make, epochs=2, batch_size=25).fit(*rows())

    first, second = ([row for batch in batches[begin : begin + 3] for row in batch] for begin in (0, 3))
    assert [len(one) for one in batches] == [25, 25, 10] * 2
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


def test_numbers_of_numpy_are_numbers():
    """As a grid search over `np.arange` gives them."""
    X, y = rows()

    model = quick(MCRegressor, epochs=np.int64(2), samples=np.int64(5), batch_size=np.int64(8), tau=np.float32(2))

    assert model.fit(X, y).predict_mc(X).num_samples.tolist() == [5] * len(X)


# Classes


def test_probabilities_are_the_mean_of_the_draws():
    """And the class is the likeliest, by its own name."""
    X, y = rows()
    names = np.array(["none", "one", "two"])
    model = quick(MCClassifier).fit(X, names[y])

    r = model.predict_mc(X, keep_samples=True)

    assert r.samples.shape == (10, 60, 3)
    np.testing.assert_allclose(model.predict_proba(X), r.samples.double().mean(0).numpy(), rtol=0, atol=10 * EPS)
    assert model.predict(X).tolist() == [str(names[one]) for one in r.mean.argmax(1)]


def test_one_class_is_too_few():
    """There is nothing to tell apart."""
    with pytest.raises(ValueError, match="y must be of two classes at least, got 1 class"):
        MCClassifier().fit([[0.0], [1.0]], [1, 1])


# Values


def test_the_deviation_is_that_of_the_passes_and_the_noise():
    """Their variances add up; the mean is that without it."""
    X, y = rows()
    model = quick(MCRegressor, tau=4.0).fit(X, y)

    mean, std = model.predict(X, return_std=True)

    r = model.predict_mc(X)
    assert model.tau_ == 4
    np.testing.assert_allclose(std**2, r.variance.numpy() + 0.25, rtol=10 * EPS)
    assert np.array_equal(mean, model.predict(X))


def test_values_are_in_the_units_of_y():
    """Targets times 1024, and shifted: so are mean and draws; variances grow by its square, the precision shrinks."""
    X, y = rows()
    plain, large = quick(MCRegressor).fit(X, y), quick(MCRegressor).fit(X, 1024.0 * y + 512)

    one, other = plain.predict_mc(X, keep_samples=True), large.predict_mc(X, keep_samples=True)

    def close(got, expected):
        expected = np.asarray(expected)
        # Sums of ten samples, and of the training's few hundred numbers.
        np.testing.assert_allclose(np.asarray(got), expected, rtol=0, atol=1000 * EPS * np.abs(expected).max())

    close(large.predict(X), 1024 * plain.predict(X) + 512)
    close(large.predict(X, return_std=True)[1], 1024 * plain.predict(X, return_std=True)[1])
    close(other.mean, 1024 * one.mean + 512)
    close(other.samples, 1024 * one.samples + 512)
    close(other.variance, 2**20 * one.variance)
    close(other.standard_error["mean"], 1024 * one.standard_error["mean"])
    close(other.standard_error["variance"], 2**20 * one.standard_error["variance"])
    assert large.tau_ == pytest.approx(plain.tau_ / 2**20, rel=1e-4)
    close(one.samples.mean(0), plain.predict(X))


def test_small_differences_of_large_targets_are_seen():
    """A thousand million more than float32 can tell apart by less than 64: they are predicted in float64."""
    X, y = rows(200)

    assert quick(MCRegressor, epochs=30, tau=1.0).fit(X, y + 1e9).score(X, y + 1e9) > 0.5


def test_the_noise_is_told_by_rows_that_were_not_trained_on():
    """The first network sees four fifths of the rows, the second, which is kept, all."""
    seen = []

    class Watched(nn.Sequential):
        def forward(self, input):
            if self.training:
                seen[self.number].update(input[:, 0].tolist())
            return super().forward(input)

    def make(n_features, n_outputs):
        network = Watched(nn.Dropout(0.5), nn.Linear(n_features, n_outputs))
        network.number = len(seen)
        seen.append(set())
        return network

    X, y = rows(50)
    model = quick(MCRegressor, module=make).fit(X, y)

    everything = set(model._inputs(X)[:, 0].tolist())
    assert [len(one) for one in seen] == [40, 50]
    assert seen[0] < seen[1] == everything
    assert model.network_.number == 1


@pytest.mark.slow
def test_the_precision_is_that_of_the_noise():
    """Where the rest can be learnt, the variance of passes and noise is that of the errors on new rows."""
    rng = np.random.RandomState(0)
    X = rng.rand(2000, 1)
    y = 2 * X[:, 0] + 0.5 * rng.randn(2000)
    model = MCRegressor(random_state=0).fit(X[:1000], y[:1000])

    mean, std = model.predict(X[1000:], return_std=True)

    # 200 rows told the noise and 1000 test it: five standard errors of the logarithm of a variance.
    assert abs(np.log(np.mean((y[1000:] - mean) ** 2) / np.mean(std**2))) < 5 * np.sqrt(2 / 200 + 2 / 1000)


def test_a_given_precision_trains_once():
    """With a number for tau no rows are held out and no second network is made."""
    made = []

    def make(n_features, n_outputs):
        made.append(1)
        return nn.Sequential(nn.Dropout(0.5), nn.Linear(n_features, n_outputs))

    quick(MCRegressor, module=make, tau=1.0).fit(*rows())

    assert len(made) == 1


@pytest.mark.parametrize("width", [2, None])
def test_a_regressor_has_one_output(width):
    """(N, 1) and (N,) are values; (N, 2) is refused, before anything is broadcast."""

    def make(n_features, n_outputs):
        layers = nn.Sequential(nn.Linear(n_features, width or 1), nn.Dropout(0.5))
        return layers if width else nn.Sequential(layers, nn.Flatten(0))

    model = quick(MCRegressor, module=make)

    if width is None:
        assert model.fit(*rows()).predict(rows()[0]).shape == (60,)
        return
    with pytest.raises(ValueError, match=r"the output of the module must be of shape \(N, 1\), got \(60, 2\)"):
        model.set_params(tau=1.0).fit(*rows())


# Errors


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (MCClassifier, {"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        (MCClassifier, {"batch_size": 1.5}, "batch_size must be an integer of at least 1, got 1.5"),
        (MCClassifier, {"samples": 0}, "samples must be an integer of at least 1, got 0"),
        (MCClassifier, {"p": 1.5}, "1.5"),
        (MCRegressor, {"samples": 1}, "samples must be at least 2, to have a variance, got 1"),
        (MCRegressor, {"tau": "fitted"}, 'tau must be larger than 0 and finite, or "fit", got fitted'),
        (MCRegressor, {"tau": 0.0}, 'tau must be larger than 0 and finite, or "fit", got 0'),
        (MCRegressor, {"tau": float("nan")}, 'tau must be larger than 0 and finite, or "fit", got nan'),
    ],
)
def test_a_wrong_parameter_is_named_by_fit(kind, parameters, message):
    """The constructor only stores, as scikit-learn wants it; fit says what was wanted and what came."""
    model = clone(kind(**parameters))

    with pytest.raises(ValueError, match=message):
        model.fit(*rows())


def test_a_network_without_dropout_says_so():
    """There would be nothing to sample."""
    model = quick(MCClassifier, hidden=()).fit(*rows())

    with pytest.raises(dropkit.mc.NothingToSample):
        model.predict(rows()[0])


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    """The import names the extra."""
    monkeypatch.delitem(sys.modules, "dropkit.mc.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)

    with pytest.raises(ImportError, match=r'pip install "dropkit\[mc\]"'):
        import_module("dropkit.mc.sklearn")
