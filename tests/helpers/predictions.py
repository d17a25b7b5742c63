"""Predictions for tests, out of draws that are written down."""

from __future__ import annotations

import torch

from dropkit.mc import ClassPrediction
from dropkit.mc.accumulators import entropy


def classes(draws: object) -> ClassPrediction:
    """A prediction with these draws, (T, N, ..., classes)."""
    draws = torch.as_tensor(draws, dtype=torch.float32)
    middle = draws.mean(0)
    of_mean, of_each = entropy(middle), entropy(draws).mean(0)
    votes = torch.nn.functional.one_hot(draws.argmax(-1), draws.shape[-1]).float().mean(0)
    return ClassPrediction(
        mean=middle,
        variance=torch.zeros_like(middle),
        standard_error={},
        samples=torch.full((draws.shape[1],), len(draws)),
        draws=draws,
        notes=(),
        entropy=of_mean,
        expected_entropy=of_each,
        mutual_information=of_mean - of_each,
        mutual_information_jackknife=of_mean - of_each,
        variation_ratio=1 - votes.amax(-1),
    )
