"""Monte Carlo dropout: the uncertainty of a model's predictions, from many passes with dropout active."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dropkit.extras import needed_for
from dropkit.mc import acquisition, conformal, metrics
from dropkit.mc.moments.moments import NoMomentRule
from dropkit.mc.predict import from_samples, predict
from dropkit.mc.prediction import ClassPrediction, MultilabelPrediction, Prediction, ValuePrediction
from dropkit.mc.propagate import propagate
from dropkit.mc.sampling import NothingToSample, sampling
from dropkit.public_names import public_names

if TYPE_CHECKING:
    from dropkit.mc.sklearn import MCClassifier, MCRegressor

# Imported on first use, since they need scikit-learn.
_LAZY = ("MCClassifier", "MCRegressor")

__all__ = [
    "ClassPrediction",
    "MCClassifier",
    "MCRegressor",
    "MultilabelPrediction",
    "NoMomentRule",
    "NothingToSample",
    "Prediction",
    "ValuePrediction",
    "acquisition",
    "conformal",
    "from_samples",
    "metrics",
    "predict",
    "propagate",
    "sampling",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'dropkit.mc' has no attribute {name!r}")
    with needed_for(name):
        return getattr(importlib.import_module("dropkit.mc.sklearn"), name)


def __dir__() -> list[str]:
    return public_names(globals())
