"""The tables of a prediction, for terminals and pages: measures, the plain pass beside them, least certain inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dropkit.mc.measures import (
    IGNORED,
    ClassMeasures,
    Measure,
    MultilabelMeasures,
    Prediction,
    known_measures,
    mean_of_labels,
    measures_in_tables,
)
from dropkit.mc.metrics.comparison import Difference
from dropkit.mc.summary import Summary, as_list, of_plain, plain_label
from dropkit.report.columns import Cell, Column, Verdict

# In place of a number.
NOT_KNOWN = "-"
# So many labels or values of one input are shown.
_MOST_SHOWN = 3
# What reports call their numbers: in words, and the unit.
_NUMBERS = {
    "error": ("error", "fraction"),
    "nll": ("negative log-likelihood", "nats"),
    "brier": ("Brier score", ""),
    "ece": ("calibration error (ECE)", "fraction"),
    "rmse": ("root mean squared error", "y"),
    "log_likelihood": ("log-likelihood", "nats"),
}


def measures(summary: Summary) -> list[Column]:
    """Return each measure with its mean over the inputs, its mean standard error, and that of the plain pass."""
    prediction, errors, plain = summary.prediction, summary.errors(), of_plain(summary.prediction)
    shown = measures_in_tables(prediction)

    def cells(tensors: Mapping[str, Tensor]) -> tuple[Cell, ...]:
        found = (tensors.get(measure.name) for measure in shown)
        return tuple(Cell(NOT_KNOWN) if tensor is None else number_cell(_mean(prediction, tensor)) for tensor in found)

    columns = [
        words("measure", [measure.label for measure in shown]),
        words("unit", [measure.unit for measure in shown]),
        Column("mean over inputs", "", cells(prediction.measures)),
        Column("± std. error", "of one input", cells(errors)),
        Column("plain pass", "mean over inputs", cells(plain)),
    ]
    return [column for column in columns if any(cell.text != NOT_KNOWN for cell in column.cells)]


def comparison(summary: Summary) -> list[Column]:
    """Return the numbers of the report for the samples and for the plain pass; nothing if they are not known."""
    found = None if summary.report is None else summary.report.comparison
    if found is None:
        return []
    rows, items = found.differences, list(found.differences.values())
    return [
        words("", [_NUMBERS[name][0] for name in rows]),
        words("unit", [_NUMBERS[name][1] for name in rows]),
        Column("samples", "their mean", tuple(number_cell(item.sampled) for item in items)),
        Column("plain pass", "no dropout", tuple(number_cell(item.plain) for item in items)),
        Column("difference", "95 % interval", tuple(map(_difference, items))),
        Column("sampling is", "", tuple(Cell(i.verdict, verdict=_verdict(i)) for i in items), is_number=False),
    ]


def least_certain(summary: Summary) -> list[Column]:
    """Return the table of the least certain inputs."""
    prediction, shown = summary.prediction, summary.least_certain_indices()
    has_labels = isinstance(prediction, (ClassMeasures, MultilabelMeasures))
    columns = [Column("input", "", tuple(Cell(str(number), number) for number in shown))]
    columns += _labels(summary, prediction, shown) if has_labels else _values(summary, shown)
    wanted = ("entropy", "mutual_information") if has_labels else ("variance", "aleatoric_variance")
    columns += [_measure(prediction, m, shown) for m in known_measures(prediction) if m.name in wanted]
    order = summary.order
    if order is not None and order.name in summary.errors():
        errors, unit = summary.errors()[order.name], str(order.unit)
        if unit == "y^2":
            # Of the standard deviation, of which the variance is shown in no table of inputs.
            deviation = prediction.measures[order.name].sqrt()
            errors, unit = (errors / (2 * deviation)).where(deviation > 0, 0.0), "y"
        errors = mean_of_labels(prediction, errors)
        columns.append(Column("± std. error", unit, tuple(number_cell(errors[number]) for number in shown)))
    return columns


def words(heading: str, texts: list[str]) -> Column:
    """Return a column of words."""
    return Column(heading, "", tuple(map(Cell, texts)), is_number=False)


def in_short(value: Tensor | float) -> str:
    """Return a number with four significant digits."""
    return f"{float(value):.4g}"


def number_cell(value: Tensor | float) -> Cell:
    """Return the cell of a number."""
    return Cell(in_short(value), float(value))


def _mean(prediction: Prediction, measure: Tensor) -> Tensor:
    """The mean of a measure with a number for each label or value, without padding."""
    return measure.mean() if prediction.valid is None else measure[prediction.valid].mean()


def _difference(item: Difference) -> Cell:
    difference = item.sampled - item.plain
    return Cell(f"{difference:+.4f} ({item.low:+.4f}, {item.high:+.4f})", difference, _verdict(item))


def _verdict(item: Difference) -> Verdict:
    return "" if item.verdict == "no clear difference" else item.verdict


def _labels(summary: Summary, prediction: ClassMeasures | MultilabelMeasures, shown: list[int]) -> list[Column]:
    truth, plain, plain_labels = summary.comparable_truth(), of_plain(prediction), plain_label(prediction)
    has_one = prediction.label.dim() == (1 if isinstance(prediction, ClassMeasures) else 2)
    heading = "predicted" if truth is None else "predicted / true" if has_one else "right"
    cells = tuple(_label(summary, prediction.label, truth, number) for number in shown)
    columns = [Column(heading, "", cells, is_number=False)]
    if "confidence" in prediction.measures:
        columns.append(_measure(prediction, type(prediction).confidence, shown))
    if plain_labels is not None:
        cells = tuple(_label(summary, plain_labels, truth, number, is_plain=True) for number in shown)
        columns.append(Column("plain pass", "", cells, is_number=False))
        confidence = mean_of_labels(prediction, plain["confidence"])
        cells = tuple(number_cell(confidence[number]) for number in shown)
        columns.append(Column("its confidence", "probability", cells, priority=1))
    return columns


def _values(summary: Summary, shown: list[int]) -> list[Column]:
    prediction = summary.prediction
    tensors = {"mean": prediction.mean, "true value": summary.comparable_truth(), "plain pass": prediction.plain}
    return [
        Column(name, "y", tuple(_numbers(tensor[number]) for number in shown))
        for name, tensor in tensors.items()
        if tensor is not None
    ]


def _measure(prediction: Prediction, measure: Measure, shown: list[int]) -> Column:
    tensor = prediction.measures[measure.name]
    if measure.unit == "y^2":
        heading = measure.label.replace("variance", "standard deviation")
        return Column(heading, "y", tuple(_numbers(tensor[number].sqrt()) for number in shown))
    means = mean_of_labels(prediction, tensor)
    return Column(measure.label, measure.unit, tuple(number_cell(means[number]) for number in shown))


def _label(summary: Summary, labels: Tensor, truth: Tensor | None, number: int, is_plain: bool = False) -> Cell:
    """What is predicted for one input, beside what is true, if that is known; how many are right, of several."""
    own, true = labels[number], None if truth is None else truth[number]
    if own.dim() > 1 or (own.dim() and isinstance(summary.prediction, ClassMeasures)):
        if true is None:
            return Cell(NOT_KNOWN)
        counted = (own != IGNORED) & (true != IGNORED)
        if summary.prediction.valid is not None:
            counted &= summary.prediction.valid[number]
        right = int(((own == true) & counted).sum())
        return Cell(f"{right} of {int(counted.sum())}", right)
    # argmax returns a class even where the mean is not a number.
    is_finite = bool(summary.prediction.mean[number].isfinite().all())
    text = _names(summary, own) if is_finite else NOT_KNOWN
    is_wrong = true is not None and not torch.equal(own, true)
    return Cell(
        text if true is None or is_plain else f"{text} / {_names(summary, true)}", verdict="worse" if is_wrong else ""
    )


def _names(summary: Summary, label: Tensor) -> str:
    """The name of a class, or those of the labels that are true."""
    if not label.dim():
        return summary.name(int(label))
    names = [summary.name(index) for index, is_true in enumerate(as_list(label)) if is_true == 1]
    return _first(names) if names else "none"


def _numbers(value: Tensor) -> Cell:
    numbers = value.flatten()
    return Cell(
        _first([in_short(item) for item in numbers[: _MOST_SHOWN + 1]]), float(numbers[0]) if len(numbers) else math.nan
    )


def _first(texts: list[str]) -> str:
    return ", ".join(texts[:_MOST_SHOWN]) + (", ..." if len(texts) > _MOST_SHOWN else "")
