"""The table of a prediction by class or label: errors of the samples and of the plain pass, confidence, uncertainty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from dropkit.mc.columns import NOT_KNOWN, number_cell
from dropkit.mc.measures import IGNORED, ClassMeasures, MultilabelMeasures, Prediction, known_measures
from dropkit.mc.standard_errors import agresti_coull
from dropkit.mc.summary import Summary, plain_label
from dropkit.report.columns import Cell, Column

# The half width of a 95 % interval in standard errors.
_Z = 1.96
_SHOWN = ("confidence", "entropy", "mutual_information")


def per_class(summary: Summary) -> list[Column]:
    """Return a row for each class that is true or predicted, or for each label of several; nothing for values."""
    prediction, truth = summary.prediction, summary.comparable_truth()
    if isinstance(prediction, ClassMeasures):
        return _of_classes(summary, prediction, truth)
    is_row_of_labels = isinstance(prediction, MultilabelMeasures) and prediction.mean.dim() == 2
    return _of_labels(summary, prediction, truth) if is_row_of_labels else []


def _of_classes(summary: Summary, prediction: ClassMeasures, truth: Tensor | None) -> list[Column]:
    counted = _counted(prediction, prediction.label, truth)
    own, plain = prediction.label[counted], plain_label(prediction)
    other = None if plain is None else plain[counted]
    true = own if truth is None else truth[counted]
    classes = cast("list[int]", torch.cat([true, own]).unique().tolist())
    groups = [true == label for label in classes]
    names = tuple(Cell(summary.name(label), label) for label in classes)
    what = "inputs" if prediction.label.dim() == 1 else "labels"
    columns = [
        Column("class", "", names, is_number=summary.classes is None),
        Column("predicted" if truth is None else "true", what, _counts(groups)),
    ]
    if truth is not None:
        columns.append(
            Column("error", "% ± 95 % interval", tuple(_rate(own[group] != true[group]) for group in groups))
        )
    if other is not None and truth is not None:
        columns.append(
            Column("plain pass error", "%", tuple(_rate(other[group] != true[group], False) for group in groups))
        )
    elif other is not None:
        columns.append(Column("plain pass predicts", what, _counts([other == label for label in classes])))
    if truth is not None:
        precise = tuple(_rate(true[own == label] == label, False) for label in classes)
        columns.append(Column("precision", "%", precise))
        taken = tuple(_most_taken_for(summary, own[group], label) for group, label in zip(groups, classes, strict=True))
        columns.append(Column("most often taken for", "", taken, is_number=False))
    return columns + _means(prediction, lambda tensor: [tensor[counted][group] for group in groups])


def _of_labels(summary: Summary, prediction: Any, truth: Tensor | None) -> list[Column]:
    labels, counted = range(prediction.mean.shape[1]), _counted(prediction, prediction.label, truth)
    own, plain = prediction.label == 1, plain_label(prediction)
    columns = [
        Column("label", "", tuple(Cell(summary.name(n), n) for n in labels), is_number=summary.classes is None),
        Column("predicted", "inputs", _counts([own[:, n][counted[:, n]] for n in labels])),
    ]
    if truth is None:
        if plain is not None:
            columns.append(
                Column("plain pass predicts", "inputs", _counts([plain[:, n][counted[:, n]] == 1 for n in labels]))
            )
    else:
        is_true = [(truth[:, n] == 1) & counted[:, n] for n in labels]
        is_false = [(truth[:, n] == 0) & counted[:, n] for n in labels]
        columns.append(Column("true", "inputs", _counts(is_true)))
        for name, of in (("", own), ("plain pass ", None if plain is None else plain == 1)):
            if of is not None:
                missed = tuple(_rate(~of[:, n][is_true[n]], not name) for n in labels)
                alarms = tuple(_rate(of[:, n][is_false[n]], not name) for n in labels)
                unit = "%" if name else "% ± 95 % interval"
                columns += [Column(f"{name}missed", unit, missed), Column(f"{name}false alarms", unit, alarms)]
    return columns + _means(prediction, lambda tensor: [tensor[:, n][counted[:, n]] for n in labels])


def _counted(prediction: Prediction, label: Tensor, truth: Tensor | None) -> Tensor:
    """Where labels count: not at padding, and not where the prediction is not a number."""
    counted = label != IGNORED
    if truth is not None:
        counted &= truth != IGNORED
    is_finite = prediction.mean.isfinite()
    return counted & (is_finite if is_finite.dim() == label.dim() else is_finite.all(-1))


def _counts(groups: list[Tensor]) -> tuple[Cell, ...]:
    return tuple(Cell(f"{int(group.sum()):,}", int(group.sum())) for group in groups)


def _rate(events: Tensor, has_interval: bool = True) -> Cell:
    """The rate of events in percent, with half the width of its 95 % interval."""
    if not len(events):
        return Cell(NOT_KNOWN)
    rate = events.double().mean()
    half = _Z * agresti_coull(rate, torch.tensor(len(events)))
    return Cell(f"{100 * rate:.1f}" + (f" ± {100 * half:.1f}" if has_interval else ""), float(rate))


def _most_taken_for(summary: Summary, predicted: Tensor, label: int) -> Cell:
    wrong = predicted[predicted != label]
    if not len(wrong):
        return Cell(NOT_KNOWN)
    other = int(wrong.mode().values)
    return Cell(f"{summary.name(other)} ({int((wrong == other).sum())})")


def _means(prediction: Prediction, grouped: Callable[[Tensor], list[Tensor]]) -> list[Column]:
    """The mean of each measure over the labels of each group."""
    return [
        Column(
            measure.label,
            measure.unit,
            tuple(
                number_cell(values.mean()) if len(values) else Cell(NOT_KNOWN)
                for values in grouped(prediction.measures[measure.name])
            ),
        )
        for measure in known_measures(prediction)
        if measure.name in _SHOWN
    ]
