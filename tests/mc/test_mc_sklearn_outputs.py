"""MCRegressor with several outputs, and MCClassifier with several labels."""
# ruff: noqa: N806 (scikit-learn's X)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers.mc_estimators import EPS, quick
from sklearn.model_selection import GridSearchCV
from torch import nn

from dropkit.mc.sklearn import MCClassifier, MCRegressor


def outputs(count: int = 80) -> tuple[Any, Any]:
    """Inputs, and two values of each in units that differ by a factor of a thousand."""
    X = np.random.RandomState(0).randn(count, 3)
    noise = np.random.RandomState(1).randn(count, 2)
    return X, np.stack([X[:, 0], 1000 * X[:, 1] + 5000], 1) + noise * [0.1, 300]


def labels(count: int = 120) -> tuple[Any, Any]:
    """Inputs, and two labels of which none, one or both are true."""
    X = np.random.RandomState(0).randn(count, 3)
    return X, (X[:, :2] > [0.0, 0.5]).astype(int)


def test_every_output_is_learned_in_its_own_units() -> None:
    """Means explain most of the variance of each output, and each has its own noise."""
    X, y = outputs()

    model = quick(MCRegressor, epochs=100).fit(X, y)
    mean, std = model.predict(X, return_std=True)

    assert mean.shape == std.shape == y.shape
    assert ((y - mean).var(0) < 0.5 * y.var(0)).all()
    assert model.tau_.shape == (2,)
    assert (std[:, 1] > 100 * std[:, 0]).all()


def test_one_column_is_predicted_as_one_column() -> None:
    """(N, 1) gives the numbers of (N,), in its own shape."""
    X, y = outputs()

    flat, column = quick(MCRegressor).fit(X, y[:, 0]), quick(MCRegressor).fit(X, y[:, :1])

    assert np.array_equal(flat.predict(X), column.predict(X)[:, 0])
    assert column.predict(X).shape == (len(X), 1)
    assert flat.predict_mc(X).mean.shape == (len(X),)
    assert flat.tau_ == column.tau_[0]


@pytest.mark.parametrize("columns", [slice(0, 1), slice(0, 2)])
def test_every_tensor_of_a_prediction_is_in_the_units_of_y(columns: slice) -> None:
    """The samples, the plain pass, the mean and the variance."""
    X, y = outputs()
    model = quick(MCRegressor).fit(X, y[:, columns])

    r = model.predict_mc(X, keep_samples=True)

    with torch.no_grad():
        standard = model.network_(torch.from_numpy(model.input_scaler_.transform(X).astype(np.float32)))
    bound = {"rtol": 1e-4, "atol": 100 * EPS * np.abs(y).max()}
    np.testing.assert_allclose(r.plain, model.target_scaler_.inverse_transform(standard), **bound)
    np.testing.assert_allclose(r.mean, model.predict(X), **bound)
    np.testing.assert_allclose(r.samples.mean(0), r.mean, **bound)
    np.testing.assert_allclose(r.samples.var(0), r.variance, rtol=1e-2)


def test_a_given_tau_is_that_of_every_output() -> None:
    """In the units of y."""
    X, y = outputs()

    model = quick(MCRegressor, tau=4.0).fit(X, y)

    assert model.tau_.tolist() == [4.0, 4.0]


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_matrix, lambda y: y.tolist(), lambda y: y.astype(bool)])
def test_labels_are_predicted_each_for_itself(make: Any) -> None:
    """Several may be true, and probabilities of a row do not sum to 1."""
    X, y = labels()

    model = quick(MCClassifier, epochs=60).fit(X, make(y))
    probabilities = model.predict_proba(X)

    assert probabilities.shape == y.shape
    assert (model.predict(X) == (probabilities > 0.5)).all()
    assert (model.predict(X) == y).mean() > 0.85
    assert model.classes_.tolist() == [0, 1]
    r = model.predict_mc(X)
    assert r.mutual_information.shape == y.shape
    assert 0 <= r.report(torch.from_numpy(y)).error < 0.15


def test_several_classes_of_a_row_are_refused() -> None:
    """Labels are 0 or 1."""
    X, y = labels()

    with pytest.raises(ValueError, match=r"y must be of one class for each row, or of labels that are 0 or 1"):
        quick(MCClassifier).fit(X, y + np.array([0, 1]))


def test_a_network_with_other_outputs_is_refused() -> None:
    """With the shape that is wanted."""
    X, y = outputs()

    with pytest.raises(ValueError, match=r"the output of the module must be of shape \(N, 2\), got \(64, 3\)"):
        quick(MCRegressor, module=lambda inputs, outputs: nn.Linear(inputs, 3)).fit(X, y)


@pytest.mark.parametrize(("kind", "make"), [(MCRegressor, outputs), (MCClassifier, labels)])
def test_a_grid_search_chooses_the_rate(kind: Any, make: Any) -> None:
    """Scores of several outputs or labels are scikit-learn's."""
    X, y = make()

    search = GridSearchCV(quick(kind, samples=5), {"p": [0.1, 0.3]}, cv=2).fit(X, y)

    assert search.best_params_["p"] in (0.1, 0.3)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
