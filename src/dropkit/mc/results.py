"""Results for parts of the inputs, and how they are joined into a prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dropkit.mc.accumulators import Accumulator
from dropkit.mc.jackknife import Tensors
from dropkit.mc.prediction import ClassPrediction, ValuePrediction


@dataclass(frozen=True, slots=True)
class PartialResult:
    """The measures of a part of the inputs, on the CPU; the attributes are as for `Prediction`."""

    measures: Tensors
    standard_error: Tensors
    sample_counts: Tensor
    samples: Tensor | None
    plain: Tensor | None = None

    @staticmethod
    def of(accumulator: Accumulator, samples: list[Tensor]) -> PartialResult:
        """Make a result from an accumulator, and the samples if they were kept."""
        measures, errors = accumulator.estimates()
        return PartialResult(
            {name: value.cpu() for name, value in measures.items()},
            {name: value.cpu() for name, value in errors.items()},
            accumulator.sums.count.long().cpu(),
            torch.cat(samples).cpu() if samples else None,
        )


def join(parts: list[PartialResult], task: str, notes: list[str]) -> ClassPrediction | ValuePrediction:
    """Join the results of all inputs, in order, into a prediction."""
    measures, errors = (
        {name: torch.cat([part[name] for part in tensors]) for name in tensors[0]}
        for tensors in ([part.measures for part in parts], [part.standard_error for part in parts])
    )
    kind = ClassPrediction if task == "classification" else ValuePrediction
    return kind(
        measures=measures,
        standard_error=errors,
        sample_counts=torch.cat([part.sample_counts for part in parts]),
        samples=_joined_samples([part.samples for part in parts if part.samples is not None]),
        notes=tuple(notes),
        plain=_joined_plain([part.plain for part in parts if part.plain is not None]),
    )


def _joined_plain(parts: list[Tensor]) -> Tensor | None:
    return torch.cat(parts) if parts else None


def _joined_samples(parts: list[Tensor]) -> Tensor | None:
    """(T, N, ...); not a number where inputs took fewer samples than others."""
    if not parts:
        return None
    most = max(len(part) for part in parts)
    missing = [part.new_full((most - len(part), *part.shape[1:]), torch.nan) for part in parts]
    return torch.cat([torch.cat(pair) for pair in zip(parts, missing, strict=True)], 1)
