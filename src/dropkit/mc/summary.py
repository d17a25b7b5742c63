"""What the table and the page of a prediction both show: which inputs are least certain, notes, the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from dropkit.mc import metrics
from dropkit.mc.measures import (
    IGNORED,
    ClassMeasures,
    Measure,
    Prediction,
    SampleMeans,
    ValueMeasures,
    known_measures,
    least_samples,
    mean_of_labels,
    measures_of,
)
from dropkit.mc.metrics import ClassificationReport, RegressionReport

Report = ClassificationReport | RegressionReport


@dataclass(frozen=True, slots=True)
class Summary:
    """A prediction, with what the table and the page show beside it.

    Attributes:
        truth: the true classes or values, if they are known.
        report: the prediction compared with them.
        top: how many of the least certain inputs to show.
        classes: the name of each class or label; their numbers if None.
        inputs: of which the page shows those that are images: a tensor, an array, or a data set.
        warnings: for the head of the table and of the page.
    """

    prediction: Prediction
    truth: Tensor | None
    report: Report | None
    top: int
    classes: Sequence[str] | None = None
    inputs: Any = None
    warnings: tuple[str, ...] = ()

    def name(self, label: int) -> str:
        """The name of a class or label."""
        is_named = self.classes is not None and 0 <= label < len(self.classes)
        return self.classes[label] if self.classes is not None and is_named else str(label)

    def changed(self) -> str:
        """For how many labels the plain pass predicts another class, as a sentence; empty if that is not known."""
        other = plain_label(self.prediction)
        label = getattr(self.prediction, "label", None)
        if other is None or label is None:
            return ""
        counted = label != IGNORED
        differ = int(((other != label) & counted).sum())
        what = "inputs" if label.dim() == 1 else "labels"
        return f"the plain pass, without dropout, predicts otherwise for {differ:,} of {int(counted.sum()):,} {what}"

    def least_certain_title(self) -> str:
        """The heading of the table of the least certain inputs."""
        if self.order is None:
            return "the first inputs"
        return f"least certain, by {self.order.label}"

    @property
    def order(self) -> Measure | None:
        """The measure that orders inputs: that of the kind of prediction, or the first that is known."""
        known = [m for m in known_measures(self.prediction) if m.higher_is_uncertain]
        return next((m for m in known if m.name == self.prediction.ordered_by), next(iter(known), None))

    def uncertainty(self) -> Tensor | None:
        """That measure, (N,): its mean over the labels or values of an input; None if there is none."""
        if self.order is None:
            return None
        return mean_of_labels(self.prediction, self.prediction.measures[self.order.name])

    def least_certain_indices(self) -> list[int]:
        """The numbers of the least certain inputs, or of the first ones, where nothing is known to order them by."""
        uncertainty, count = self.uncertainty(), min(self.top, len(self.prediction))
        if uncertainty is None:
            return list(range(count))
        return as_list(uncertainty.nan_to_num(-math.inf).topk(count).indices)

    def comparable_truth(self) -> Tensor | None:
        """The truth, if it has a class or value for each that was predicted."""
        fits = self.truth is not None and tuple(self.truth.shape) == self.prediction.label_shape
        return self.truth if fits else None

    def errors(self) -> Mapping[str, Tensor]:
        """The standard errors, of which there are none with a single sample."""
        return {} if least_samples(self.prediction) < 2 else self.prediction.standard_error


def of_plain(prediction: Prediction) -> dict[str, Tensor]:
    """Return the measures that a single pass has, of the plain one, by name; none if there was no plain pass."""
    plain, known = prediction.plain, measures_of(type(prediction)).items()
    if plain is None:
        return {}
    means = SampleMeans(lambda _: plain)
    return {name: m.function(means) for name, m in known if not (m.compares_samples or m.needs)}


def plain_label(prediction: Prediction) -> Tensor | None:
    """Return the classes or labels that the plain pass predicts; None for values, or without a plain pass."""
    if prediction.plain is None or isinstance(prediction, ValueMeasures):
        return None
    return prediction.plain.argmax(-1) if isinstance(prediction, ClassMeasures) else (prediction.plain > 0.5).long()


def report(prediction: Prediction, truth: Tensor | None, tau: float | None) -> Report | None:
    """Compare a prediction with the true classes or values; fit `tau` to these values if it is None.

    Raises:
        ImportError: scipy is not installed, and `tau` is to be fitted.
        TypeError: the truth does not hold classes.
        ValueError: the truth has another shape, or `tau` is out of range.
    """
    if truth is None:
        return None
    invalid = _count_not_finite(prediction)
    if invalid:
        raise ValueError(f"the model returned NaN or infinity for {invalid} of {len(prediction)} inputs")
    if isinstance(prediction, ValueMeasures):
        if tau is None and "total_variance" not in prediction.measures:
            tau = metrics.fit_tau(prediction, truth)
        return metrics.regression_report(prediction, truth, tau)
    return cast("Any", prediction).report(truth)


def with_notes(prediction: Prediction, is_fitted: bool) -> Prediction:
    """Add notes on what a reader of the numbers should know.

    Args:
        is_fitted: tau is fitted to the true values that the report compares with.
    """
    notes = list(prediction.notes)
    invalid = _count_not_finite(prediction)
    if invalid:
        notes.append(f"the mean is not a finite number for {invalid} of {len(prediction)} inputs")
    if least_samples(prediction) < 2:
        notes.append(
            "a single sample does not tell how much samples differ: there is no variance, no mutual information, no "
            "variation ratio and no standard error; two samples or more have them"
        )
    if is_fitted:
        notes.append(
            "tau was fitted to the true values that the log-likelihood and the intervals are compared with, so both "
            "look better than they are; give --tau, fitted to other inputs"
        )
    return replace(prediction, notes=tuple(notes))


def as_list(value: Tensor) -> list[Any]:
    return cast("list[Any]", value.tolist())


def _count_not_finite(prediction: Prediction) -> int:
    invalid = ~prediction.mean.isfinite()
    if prediction.valid is not None:
        valid = prediction.valid
        invalid &= valid if valid.dim() == invalid.dim() else valid.unsqueeze(-1)
    return int(invalid.reshape(len(prediction), -1).any(1).sum())
