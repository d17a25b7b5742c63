"""Predictions for tests, from samples that are written down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dropkit.mc import ClassPrediction, ValuePrediction, from_samples


def classes(samples: object) -> ClassPrediction:
    """A prediction with these samples, (T, N, ..., classes)."""
    samples = torch.as_tensor(samples, dtype=torch.float32)
    return from_samples(samples)


def values(samples: object, num_samples: list[int] | None = None) -> ValuePrediction:
    """A prediction with these samples, (T, N, ...), of which each input took so many."""
    samples = torch.as_tensor(samples, dtype=torch.float32)
    count = torch.full((samples.shape[1],), len(samples)) if num_samples is None else torch.tensor(num_samples)
    taken = [samples[:size, number] for number, size in enumerate(count)]
    return ValuePrediction(
        measures={
            "mean": torch.stack([y.mean(0) for y in taken]),
            "variance": torch.stack([y.var(0, correction=min(1, len(y) - 1)) for y in taken]),
        },
        standard_error={},
        num_samples=count,
        samples=samples,
        notes=(),
    )


def with_measures(prediction: Any, **measures: Tensor) -> Any:
    """The prediction with other numbers for some of its measures."""
    return replace(prediction, measures={**prediction.measures, **measures})
