"""Predictions: what `predict` returns, for classes and for values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dropkit.mc import conformal, metrics
from dropkit.mc.measures import ClassMeasures, Prediction, ValueMeasures
from dropkit.mc.views import Views

__all__ = ["ClassPrediction", "Prediction", "ValuePrediction"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ClassPrediction(Views, ClassMeasures):
    """Class probabilities and their measures of uncertainty, each (N, ...); entropies in nats.

    Every measure is an attribute; the documentation lists them.
    """

    def report(self, y: Tensor, bins: int = 15, by: str = "entropy") -> metrics.ClassificationReport:
        """Compare with the true classes: `metrics.classification_report`."""
        return metrics.classification_report(self, y, bins, by)

    def conformal(self, y: Tensor, level: float = 0.9, method: conformal.SetMethod = "aps") -> conformal.ConformalSets:
        """Calibrate sets of classes on these inputs, which were not trained on: `conformal.conformal_sets`."""
        return conformal.conformal_sets(self, y, level, method)

    def ood(self, other: ClassMeasures, by: str = "mutual_information") -> metrics.OODMetrics:
        """Measure how well a measure of uncertainty separates `other`, out-of-distribution inputs: `metrics.ood`."""
        return metrics.ood(self, other, by)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ValuePrediction(Views, ValueMeasures):
    """Values: `mean` and `variance`, (N, ...)."""

    def report(self, y: Tensor, tau: float) -> metrics.RegressionReport:
        """Compare with the true values, under noise of precision `tau`: `metrics.regression_report`."""
        return metrics.regression_report(self, y, tau)

    def fit_tau(self, y: Tensor) -> float:
        """Return the precision of the noise under which these true values are likeliest: `metrics.fit_tau`."""
        return metrics.fit_tau(self, y)

    def conformal(
        self, y: Tensor, level: float = 0.9, method: conformal.IntervalMethod = "scaled", tau: float | None = None
    ) -> conformal.ConformalIntervals:
        """Calibrate intervals on these inputs, which were not trained on: `conformal.conformal_intervals`."""
        return conformal.conformal_intervals(self, y, level, method, tau)

    def interval(self, level: float = 0.95, tau: float | None = None) -> tuple[Tensor, Tensor]:
        """Return the ends of the central interval, with noise of precision `tau` or without: `metrics.interval`."""
        return metrics.interval(self, level, tau)
