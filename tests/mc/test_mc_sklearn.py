"""MCClassifier and MCRegressor: scikit-learn's contract, seeds, classes and errors."""
# ruff: noqa: N806 (scikit-learn's X)

import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from helpers.mc_estimators import BOTH, EPS, predictions, quick, rows
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

import dropkit
from dropkit.mc.sklearn import MCClassifier, MCRegressor

# Checks that do not apply, and why.
LEFT_OUT = {
    "check_classifiers_multilabel_output_format_decision_function": "there is no decision function; it skips itself",
    "check_array_api_input": "there is no array API to check; it skips itself",
    "check_methods_sample_order_invariance": "compares more digits than float32 has; with fewer it is a test below",
    "check_methods_subset_invariance": "compares more digits than float32 has; with fewer it is a test below",
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads slow such small networks down when other processes use the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def name_of(check):
    return getattr(check, "func", check).__name__


CHECKS = [
    pytest.param(estimator, check, id=f"{type(estimator).__name__}-{name_of(check)}-{number}")
    for kind in BOTH
    for number, (estimator, check) in enumerate(estimator_checks_generator(kind()))
    if name_of(check) not in LEFT_OUT
]


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "check"), CHECKS)
def test_scikit_learn_accepts_it(estimator, check):
    """Every check of scikit-learn's that applies holds with the defaults."""
    check(estimator)


# Seeds


@pytest.mark.parametrize("kind", BOTH)
def test_equal_seeds_give_equal_bits(kind):
    """Training and passes depend on `random_state`, and not on torch's and numpy's generators."""
    X, y = rows()

    first = quick(kind).fit(X, y)
    torch.manual_seed(5)
    np.random.seed(5)
    second, other = quick(kind).fit(X, y), quick(kind, random_state=1).fit(X, y)

    assert np.array_equal(predictions(first, X), predictions(second, X))
    assert np.array_equal(predictions(first, X), predictions(first, X))
    assert not np.array_equal(predictions(first, X), predictions(other, X))


@pytest.mark.parametrize("kind", BOTH)
def test_no_generator_is_touched(kind):
    """With a seed, neither torch's generator nor numpy's moves."""
    X, y = rows()
    of_torch, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()

    predictions(quick(kind).fit(X, y), X)

    assert torch.equal(torch.get_rng_state(), of_torch)
    assert np.array_equal(np.random.get_state()[1], of_numpy)


@pytest.mark.parametrize("kind", BOTH)
def test_without_a_seed_numpys_generator_decides(kind):
    """As everywhere in scikit-learn: `random_state=None` draws from numpy's generator."""
    X, y = rows()
    seeds = []
    for start in (1, 1, 2):
        np.random.seed(start)
        seeds.append(quick(kind, random_state=None).fit(X, y).seed_)

    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.parametrize("kind", BOTH)
def test_a_row_is_predicted_as_if_alone(kind):
    """Its prediction depends on no other row, but for the rounding of sums over the samples in float32."""
    X, y = rows()
    model = quick(kind).fit(X, y)
    order = np.random.RandomState(1).permutation(len(X))

    whole, shuffled = predictions(model, X), predictions(model, X[order])
    alone = np.concatenate(
        [predictions(model, X[row : row + 1]) for row in range(len(X))], 0 if kind is MCClassifier else 1
    )

    bound = {"rtol": 0, "atol": np.abs(whole).max() * model.samples * EPS}
    np.testing.assert_allclose(shuffled, whole[order] if kind is MCClassifier else whole[:, order], **bound)
    np.testing.assert_allclose(alone, whole, **bound)


def test_rows_may_have_masks_of_their_own():
    """With masks="input" equal rows are predicted differently, by default equally."""
    X, y = rows()
    twice = np.repeat(X[:1], 2, 0)

    shared = quick(MCClassifier).fit(X, y).predict_mc(twice).mean
    own = quick(MCClassifier, masks="input").fit(X, y).predict_mc(twice).mean

    # Sums of ten samples; different masks change a mean by much more than rounding does.
    assert (shared[0] - shared[1]).abs().max() < 10 * EPS
    assert (own[0] - own[1]).abs().max() > 100 * EPS


# Classes


def test_probabilities_are_the_mean_of_the_samples():
    """And the class is the likeliest, by its own name."""
    X, y = rows()
    names = np.array(["none", "one", "two"])
    model = quick(MCClassifier).fit(X, names[y])

    r = model.predict_mc(X, keep_samples=True)

    assert r.samples.shape == (10, 60, 3)
    np.testing.assert_allclose(model.predict_proba(X), r.samples.double().mean(0).numpy(), rtol=0, atol=10 * EPS)
    assert model.predict(X).tolist() == [str(names[label]) for label in r.mean.argmax(1)]


def test_one_class_is_too_few():
    """There is nothing to classify."""
    with pytest.raises(ValueError, match="y must be of two classes at least, got 1 class"):
        MCClassifier().fit([[0.0], [1.0]], [1, 1])


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
    """The constructor only stores, as scikit-learn requires; fit validates."""
    model = clone(kind(**parameters))

    with pytest.raises(ValueError, match=message):
        model.fit(*rows())


def test_a_network_without_dropout_says_so():
    """There is nothing to sample."""
    model = quick(MCClassifier, hidden=()).fit(*rows())

    with pytest.raises(dropkit.mc.NothingToSample):
        model.predict(rows()[0])


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    """The import names the extra."""
    for name in ("dropkit.mc.sklearn", "dropkit.mc.sklearn_base"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)

    with pytest.raises(ImportError, match=r'pip install "dropkit\[mc\]"'):
        import_module("dropkit.mc.sklearn")
