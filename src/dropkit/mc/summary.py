"""What the table and the page of a prediction both show: measures, the least certain inputs, notes, the report."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from dropkit.mc import metrics
from dropkit.mc.measures import (
    ClassMeasures,
    Measure,
    MultilabelMeasures,
    Prediction,
    ValueMeasures,
    least_samples,
    mean_of_labels,
    measures_in_tables,
    measures_of,
)
from dropkit.mc.metrics import ClassificationReport, RegressionReport

# In place of a number.
_NOT_COMPUTED = "-"

Report = ClassificationReport | RegressionReport


@dataclass(frozen=True, slots=True)
class Summary:
    """A prediction, with what the table and the page show beside it.

    Attributes:
        truth: the true classes or values, if they are known.
        report: the prediction compared with them.
        top: how many of the least certain inputs to show.
    """

    prediction: Prediction
    truth: Tensor | None
    report: Report | None
    top: int

    def measures(self) -> list[tuple[str, str, str]]:
        """Name, mean over inputs and mean standard error of each measure."""
        errors = self.prediction.standard_error
        return [
            (
                measure.label,
                in_short(self._mean(self.prediction.measures[measure.name])),
                in_short(self._mean(errors[measure.name])) if measure.name in errors else _NOT_COMPUTED,
            )
            for measure in measures_in_tables(self.prediction)
        ]

    def _mean(self, measure: Tensor) -> Tensor:
        """The mean of a measure with a number for each label or value, without padding."""
        return measure.mean() if self.prediction.valid is None else measure[self.prediction.valid].mean()

    @property
    def ordered_by(self) -> str:
        """The measure by which inputs are ordered, in words."""
        return self._order.label

    @property
    def _order(self) -> Measure:
        """The measure that orders inputs: that of the kind of prediction, or the first that was computed."""
        computed = self.prediction.measures
        known = [measure for name, measure in measures_of(type(self.prediction)).items() if name in computed]
        ordering = [measure for measure in known if measure.higher_is_uncertain]
        return next((m for m in ordering if m.name == self.prediction.ordered_by), (ordering or known)[0])

    def uncertainty(self) -> Tensor:
        """That measure, (N,): its mean over the labels or values of an input."""
        measure = self.prediction.measures[self._order.name]
        return mean_of_labels(self.prediction, measure)

    def least_certain(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The head and the rows of the table of the least certain inputs."""
        prediction, truth = self.prediction, self.truth
        if isinstance(prediction, ClassMeasures):
            head: tuple[str, ...] = (
                "input",
                "predicted",
                "confidence",
                "entropy",
                "mutual information",
                "± std. error",
            )
        else:
            head = ("input", "mean", "standard deviation")
        if truth is not None and prediction.mean.dim() <= 2:
            head = (*head, "true label" if isinstance(prediction, ClassMeasures) else "true value")
        else:
            truth = None
        order = self.uncertainty().nan_to_num(-math.inf).topk(min(self.top, len(prediction))).indices
        rows = [
            _row(prediction, number) + (() if truth is None else (_numbers_in_short(truth[number]),))
            for number in as_list(order)
        ]
        return head, rows


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
    if isinstance(prediction, MultilabelMeasures):
        return cast("Any", prediction).report(truth)
    assert isinstance(prediction, ClassMeasures)
    return metrics.classification_report(prediction, truth)


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
        notes.append("with a single sample there is no standard error, it is nan")
    if is_fitted:
        notes.append(
            "tau was fitted to the true values that the log-likelihood and the intervals are compared with, so both "
            "look better than they are; give --tau, fitted to other inputs"
        )
    return replace(prediction, notes=tuple(notes))


def in_short(value: Tensor | float) -> str:
    """Return a number with four significant digits."""
    return f"{float(value):.4g}"


def as_list(value: Tensor) -> list[Any]:
    return cast("list[Any]", value.tolist())


def _count_not_finite(prediction: Prediction) -> int:
    invalid = ~prediction.mean.isfinite()
    if prediction.valid is not None:
        valid = prediction.valid
        invalid &= valid if valid.dim() == invalid.dim() else valid.unsqueeze(-1)
    return int(invalid.reshape(len(prediction), -1).any(1).sum())


def _row(prediction: Prediction, number: int) -> tuple[str, ...]:
    if isinstance(prediction, ClassMeasures):
        values = [prediction.measures.get(name) for name in ("confidence", "entropy", "mutual_information")]
        values.append(prediction.standard_error.get("mutual_information"))
        label = _numbers_in_short(prediction.label[number]) if prediction.label.dim() == 1 else "-"
        cells = (_NOT_COMPUTED if value is None else in_short(_of_input(prediction, value, number)) for value in values)
        return str(number), label, *cells
    variance = prediction.measures.get("variance")
    deviation = _NOT_COMPUTED if variance is None else _numbers_in_short(variance[number].sqrt())
    return str(number), _numbers_in_short(prediction.mean[number]), deviation


def _of_input(prediction: Prediction, measure: Tensor, number: int) -> Tensor:
    """The mean of a measure over the labels of an input, without padding."""
    return measure[number].mean() if prediction.valid is None else measure[number].nanmean()


def _numbers_in_short(value: Tensor) -> str:
    """A number, or the first three of several."""
    numbers = value.flatten()
    shown = ", ".join(in_short(item) if item.is_floating_point() else str(int(item)) for item in numbers[:3])
    return shown + (", ..." if len(numbers) > 3 else "")
