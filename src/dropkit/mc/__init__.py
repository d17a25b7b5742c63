"""Monte Carlo dropout: the uncertainty of a model's predictions, from many passes with dropout left on."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dropkit.mc.predict import from_samples, predict
from dropkit.mc.prediction import ClassPrediction, Prediction, ValuePrediction
from dropkit.mc.sampling import NothingToSample, sampling

if TYPE_CHECKING:
    from dropkit.mc import acquisition, metrics
    from dropkit.mc.sklearn import MCClassifier, MCRegressor

# What needs more than torch, when it is first used.
_LATER = {"MCClassifier": "sklearn", "MCRegressor": "sklearn", "acquisition": "acquisition", "metrics": "metrics"}

__all__ = [
    "ClassPrediction",
    "MCClassifier",
    "MCRegressor",
    "NothingToSample",
    "Prediction",
    "ValuePrediction",
    "acquisition",
    "from_samples",
    "metrics",
    "predict",
    "sampling",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'dropkit.mc' has no attribute {name!r}")
    module = importlib.import_module(f"dropkit.mc.{_LATER[name]}")
    return module if name == _LATER[name] else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
