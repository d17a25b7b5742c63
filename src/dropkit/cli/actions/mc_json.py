"""A prediction as JSON: records, one for each input, or one document that holds everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor

import dropkit
from dropkit.mc.measures import ClassMeasures, measures_of, measures_with_error
from dropkit.mc.metrics.common import plain
from dropkit.mc.per_class import per_class
from dropkit.mc.summary import Summary
from dropkit.report.columns import Column

# For images and texts a record would be as long as the input.
MOST_NUMBERS = 1000


def records(summary: Summary) -> Iterator[dict[str, Any]]:
    """Yield a record for each input, in order; tensors as nested lists, None for what is not a finite number."""
    prediction, truth = summary.prediction, summary.truth
    names = [measure.name for measure in measures_with_error(prediction)]
    for number in range(len(prediction)):
        record: dict[str, Any] = {"index": number, "samples": int(prediction.sample_counts[number])}
        if isinstance(prediction, ClassMeasures):
            # argmax returns a class even where the mean is not a number.
            is_finite = bool(prediction.mean[number].isfinite().all())
            record["label"] = _numbers(prediction.label[number]) if is_finite else None
        if truth is not None and len(truth) == len(prediction):
            record["truth"] = _numbers(truth[number])
        record |= {name: _numbers(prediction.measures[name][number]) for name in names}
        record["plain"] = None if prediction.plain is None else _numbers(prediction.plain[number])
        record["notes"] = [*summary.warnings, *prediction.notes]
        record["standard_error"] = {name: _numbers(error[number]) for name, error in summary.errors().items()}
        yield record


def document(summary: Summary, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that is known, without the samples; None for what is not a finite number."""
    prediction, measures = summary.prediction, measures_of(type(summary.prediction))
    label = getattr(prediction, "label", None)
    return {
        "versions": {"dropkit": dropkit.__version__, "torch": torch.__version__},
        "options": dict(options),
        "warnings": list(summary.warnings),
        "notes": list(prediction.notes),
        "classes": None if summary.classes is None else list(summary.classes),
        "units": {name: measures[name].unit for name in prediction.measures},
        "prediction": cast("Any", prediction).to_dict(),
        "label": plain(label),
        "truth": plain(summary.truth),
        "report": None if summary.report is None else summary.report.to_dict(),
        "per_class": _rows(per_class(summary)),
    }


def _rows(columns: list[Column]) -> list[dict[str, Any]]:
    """The rows of a table: numbers, or words where a column has them."""
    if not columns:
        return []
    return [
        {
            column.heading: plain(cell.value) if column.is_number else cell.text
            for column, cell in zip(columns, cells, strict=True)
        }
        for cells in zip(*(column.cells for column in columns), strict=True)
    ]


def _numbers(value: Tensor) -> Any:
    return plain(value.tolist()) if value.numel() <= MOST_NUMBERS else None
