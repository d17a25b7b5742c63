"""Rows, estimators and predictions for tests of the scikit-learn estimators."""
# ruff: noqa: N803, N806 (scikit-learn's X)

from __future__ import annotations

from typing import Any

import numpy as np

from dropkit.mc.sklearn import MCClassifier, MCRegressor

BOTH = [MCClassifier, MCRegressor]
EPS = float(np.finfo(np.float32).eps)


def rows(count: int = 60, seed: int = 0) -> tuple[Any, Any]:
    """Inputs, and targets that both estimators can learn."""
    X = np.random.RandomState(seed).randn(count, 3)
    return X, (X[:, 0] > 0) + (X[:, 1] > 0).astype(int)


def quick(kind: Any, **parameters: Any) -> Any:
    """An estimator that trains in a moment."""
    return kind(**{"hidden": (20,), "epochs": 3, "samples": 10, "random_state": 0, **parameters})


def predictions(model: Any, X: Any) -> Any:
    """All numbers that an estimator predicts: a row of probabilities each, or means and deviations."""
    return model.predict_proba(X) if isinstance(model, MCClassifier) else np.stack(model.predict(X, return_std=True))
