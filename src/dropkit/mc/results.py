"""Results for parts of the inputs, and how they are joined into a prediction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dropkit.mc.accumulators import Accumulator
from dropkit.mc.jackknife import Tensors
from dropkit.mc.measures import StandardErrors
from dropkit.mc.prediction import KINDS, AnyPrediction
from dropkit.mc.selection import not_computed


@dataclass(frozen=True, slots=True)
class PartialResult:
    """The measures of a part of the inputs, on the CPU; the attributes are as for `Prediction`."""

    measures: Tensors
    standard_error: Tensors
    sample_counts: Tensor
    samples: Tensor | None
    plain: Tensor | None = None
    valid: Tensor | None = None

    @staticmethod
    def of(accumulator: Accumulator, plain: Tensor | None = None) -> PartialResult:
        """Make a result from an accumulator, and the plain pass if there is one."""
        measures, errors = accumulator.estimates()
        return PartialResult(
            {name: value.cpu() for name, value in measures.items()},
            {name: value.cpu() for name, value in errors.items()},
            accumulator.sums.count.long().cpu(),
            torch.cat(accumulator.samples) if accumulator.samples else None,
            plain,
        )


def join(parts: list[PartialResult], task: str, notes: list[str]) -> AnyPrediction:
    """Join the results of all inputs, in order, into a prediction."""
    parts = same_length(_with_common_names(parts))
    measures, errors = (
        # Removed from the parts as they are joined, which saves memory.
        {name: _joined([part.pop(name) for part in tensors]) for name in list(tensors[0])}
        for tensors in ([part.measures for part in parts], [part.standard_error for part in parts])
    )
    prediction = KINDS[task](
        measures=measures,
        standard_error=StandardErrors(errors),
        sample_counts=torch.cat([part.sample_counts for part in parts]),
        samples=_joined_samples([part.samples for part in parts if part.samples is not None]),
        notes=tuple(notes),
        plain=_joined_if_any(part.plain for part in parts),
        valid=_joined_if_any(part.valid for part in parts),
    )
    note = not_computed(prediction)
    return prediction if note is None else replace(prediction, notes=(*prediction.notes, note))


def _with_common_names(parts: list[PartialResult]) -> list[PartialResult]:
    """Leave out the measures that batches of longer inputs do not have."""
    measures = set[str].intersection(*(set(part.measures) for part in parts))
    errors = set[str].intersection(*(set(part.standard_error) for part in parts))
    return [
        replace(
            part,
            measures={name: value for name, value in part.measures.items() if name in measures},
            standard_error={name: value for name, value in part.standard_error.items() if name in errors},
        )
        for part in parts
    ]


def _joined(parts: list[Tensor]) -> Tensor:
    """The tensors in one, without a copy of a single one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _joined_if_any(parts: Iterable[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def same_length(parts: list[PartialResult]) -> list[PartialResult]:
    """Pad results with nan at the end of each dimension where batches differ in length, and note it in all."""
    shapes = {tuple(part.measures["mean"].shape[1:]) for part in parts}
    if len(shapes) == 1 and all(part.valid is None for part in parts):
        return parts
    longest = {
        name: torch.Size(map(max, zip(*(part.measures[name].shape[1:] for part in parts), strict=True)))
        for name in parts[0].measures
    }
    return [_padded(part, longest) for part in parts]


def _padded(part: PartialResult, longest: Mapping[str, torch.Size]) -> PartialResult:
    mean, entropy = part.measures["mean"], part.measures.get("confidence", part.measures["mean"])
    # The shape of the labels: without the dimension of classes.
    valid = torch.ones(entropy.shape, dtype=torch.bool) if part.valid is None else part.valid
    samples = (
        None if part.samples is None else _pad(part.samples.transpose(0, 1), (len(part.samples), *longest["mean"]))
    )
    padded = replace(
        part,
        measures={name: _pad(value, longest[name]) for name, value in part.measures.items()},
        standard_error={name: _pad(value, longest[name]) for name, value in part.standard_error.items()},
        samples=None if samples is None else samples.transpose(0, 1),
        plain=None if part.plain is None else _pad(part.plain, longest["mean"]),
        valid=_pad(valid, longest["confidence" if "confidence" in longest else "mean"], False),
    )
    has_classes, classes = entropy.dim() < mean.dim(), mean.shape[-1]
    if has_classes and longest["mean"][-1] > classes:
        # Positions that a shorter text does not have are no answer.
        padded.measures["mean"][..., classes:] = padded.measures["mean"][..., :1] * 0
    return padded


def _pad(value: Tensor, shape: Sequence[int], fill: float = math.nan) -> Tensor:
    """Append to each dimension after the first, up to this shape."""
    if tuple(value.shape[1:]) == tuple(shape):
        return value
    padded = value.new_full((len(value), *shape), fill)
    padded[tuple(slice(size) for size in value.shape)] = value
    return padded


def _joined_samples(parts: list[Tensor]) -> Tensor | None:
    """(T, N, ...); not a number where inputs took fewer samples than others."""
    if not parts:
        return None
    most = max(len(part) for part in parts)
    missing = [part.new_full((most - len(part), *part.shape[1:]), torch.nan) for part in parts]
    return torch.cat([torch.cat(pair) for pair in zip(parts, missing, strict=True)], 1)
