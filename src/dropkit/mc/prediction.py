"""Predictions: what `predict` returns, for classes and for values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dropkit.mc import conformal, metrics
from dropkit.mc.measures import ClassMeasures, MultilabelMeasures, Prediction, ValueMeasures
from dropkit.mc.views import Views

__all__ = ["AnyPrediction", "ClassPrediction", "MultilabelPrediction", "Prediction", "ValuePrediction"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ClassPrediction(Views, ClassMeasures):
    """Class probabilities and their measures of uncertainty, each (N, ...); entropies in nats.

    Every measure is an attribute; the documentation lists them.
    """

    def report(self, y: Tensor, bins: int = 15, by: str = "entropy") -> metrics.ClassificationReport:
        """Compare with the true classes: `metrics.classification_report`."""
        return metrics.classification_report(self, y, bins, by)

    def conformal(
        self, y: Tensor, level: float = 0.9, method: conformal.SetMethod = "aps", each: bool = False
    ) -> conformal.ConformalSets:
        """Calibrate sets of classes on these inputs, which were not trained on: `conformal.conformal_sets`."""
        return conformal.conformal_sets(self, y, level, method, each)

    def ood(self, other: ClassMeasures | MultilabelMeasures, by: str = "mutual_information") -> metrics.OODMetrics:
        """Measure how well a measure of uncertainty separates `other`, out-of-distribution inputs: `metrics.ood`."""
        return metrics.ood(self, other, by)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MultilabelPrediction(Views, MultilabelMeasures):
    """The probabilities of labels of which several may be true, and their measures of uncertainty, each (N, ...)."""

    def as_classes(self) -> ClassPrediction:
        """Return each label as a choice between two classes, false and true: `mean` is (N, ..., 2)."""
        both = {"mean": torch.stack([1 - self.mean, self.mean], -1)}
        both |= {"variance": torch.stack([self.variance, self.variance], -1)}
        errors = {name: torch.stack([error, error], -1) for name, error in self.standard_error.items() if name in both}
        return ClassPrediction(
            measures={**self.measures, **both},
            standard_error={**self.standard_error, **errors},
            sample_counts=self.sample_counts,
            samples=None if self.samples is None else torch.stack([1 - self.samples, self.samples], -1),
            notes=self.notes,
            plain=None if self.plain is None else torch.stack([1 - self.plain, self.plain], -1),
            valid=self.valid,
        )

    def report(self, y: Tensor, bins: int = 15, by: str = "entropy") -> metrics.ClassificationReport:
        """Compare with the true labels, 1 or 0 each: `metrics.classification_report` of all of them."""
        return metrics.classification_report(self.as_classes(), torch.as_tensor(y).long(), bins, by)

    def conformal(self, y: Tensor, level: float = 0.9, each: bool = False) -> conformal.ConformalLabels:
        """Calibrate sets of labels on these inputs, which were not trained on: `conformal.conformal_labels`."""
        return conformal.conformal_labels(self, y, level, each)

    def ood(self, other: ClassMeasures | MultilabelMeasures, by: str = "mutual_information") -> metrics.OODMetrics:
        """Measure how well a measure of uncertainty separates `other`, out-of-distribution inputs: `metrics.ood`."""
        return metrics.ood(self, other, by)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ValuePrediction(Views, ValueMeasures):
    """Values: `mean` and `variance`, (N, ...)."""

    def report(self, y: Tensor, tau: float | None = None) -> metrics.RegressionReport:
        """Compare with the true values, under noise of precision `tau` or that of the model's:
        `metrics.regression_report`."""
        return metrics.regression_report(self, y, tau)

    def fit_tau(self, y: Tensor) -> float:
        """Return the precision of the noise under which these true values are likeliest: `metrics.fit_tau`."""
        return metrics.fit_tau(self, y)

    def conformal(
        self,
        y: Tensor,
        level: float = 0.9,
        method: conformal.IntervalMethod = "scaled",
        tau: float | None = None,
        each: bool | None = None,
    ) -> conformal.ConformalIntervals:
        """Calibrate intervals on these inputs, which were not trained on: `conformal.conformal_intervals`."""
        return conformal.conformal_intervals(self, y, level, method, tau, each)

    def interval(self, level: float = 0.95, tau: float | None = None) -> tuple[Tensor, Tensor]:
        """Return the ends of the central interval, with noise of precision `tau` or without: `metrics.interval`."""
        return metrics.interval(self, level, tau)


AnyPrediction = ClassPrediction | MultilabelPrediction | ValuePrediction
# By task.
KINDS: dict[str, type[AnyPrediction]] = {
    "classification": ClassPrediction,
    "multilabel": MultilabelPrediction,
    "regression": ValuePrediction,
}
