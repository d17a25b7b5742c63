"""A prediction as JSON records, one for each input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from dropkit.mc.measures import ClassMeasures, Prediction, measures_with_error
from dropkit.mc.metrics.common import plain

# For images and texts a record would be as long as the input.
MOST_NUMBERS = 1000


def records(prediction: Prediction, truth: Tensor | None) -> Iterator[dict[str, Any]]:
    """Yield a record for each input, in order; tensors as nested lists, None for what is not a finite number."""
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
        record["notes"] = list(prediction.notes)
        record["standard_error"] = {name: _numbers(error[number]) for name, error in prediction.standard_error.items()}
        yield record


def _numbers(value: Tensor) -> Any:
    return plain(value.tolist()) if value.numel() <= MOST_NUMBERS else None
