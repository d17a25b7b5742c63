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
        sample_counts=count,
        samples=samples,
        notes=(),
    )


def with_measures(prediction: Any, **measures: Tensor) -> Any:
    """The prediction with other numbers for some of its measures."""
    return replace(prediction, measures={**prediction.measures, **measures})


def two_classes(confidences):
    """A prediction of the first of two classes, with these confidences."""
    return classes([[[confidence, 1 - confidence] for confidence in confidences]])


def random_prediction(inputs=200, count=4, samples=5, seed=0):
    """Random class probabilities, and true classes drawn from their means."""
    generator = torch.Generator().manual_seed(seed)
    prediction = classes((2 * torch.randn(samples, inputs, count, generator=generator)).softmax(-1))
    return prediction, prediction.mean.multinomial(1, generator=generator).squeeze(1)
