"""How well a measure of uncertainty tells inputs from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.mc.prediction import ClassPrediction

Measure = Literal["entropy", "mutual_information", "variation_ratio", "confidence"]

_MEASURES = ("entropy", "mutual_information", "variation_ratio", "confidence")


@dataclass(frozen=True, slots=True)
class Ood:
    """How well a measure of uncertainty tells inputs from elsewhere, which are the positives.

    Attributes:
        auroc: the probability that an input from elsewhere has more of it; 0.5 for a blind measure.
        aupr: average precision; for a blind measure the fraction of inputs from elsewhere.
        fpr95: the fraction of inputs from inside that is rejected, too, where at least 95 % from elsewhere are.
    """

    auroc: float
    aupr: float
    fpr95: float


def ood(inside: ClassPrediction, outside: ClassPrediction, by: Measure = "mutual_information") -> Ood:
    """Say how well a measure of uncertainty tells inputs from elsewhere, which should have more of it.

    Args:
        inside: inputs like those of the training.
        outside: inputs from elsewhere.
        by: the measure; of "confidence" less is more uncertain.

    Raises:
        ImportError: torchmetrics is not installed.
        ValueError: `by` is no measure.
    """
    try:
        from torchmetrics.functional import classification as metrics
    except ImportError as error:
        raise ImportError('ood needs torchmetrics: pip install "dropkit[mc]"') from error
    measures = uncertainty(inside, by), uncertainty(outside, by)
    # Ranks, since torchmetrics takes numbers outside of [0, 1] for logits, and large logits are all 1 in float32.
    rank = groups(torch.cat(measures))[0].double()
    rank = rank / rank.amax().clamp(min=1)
    elsewhere = torch.cat([torch.full((len(one),), place) for place, one in enumerate(measures)])
    specificity, _ = metrics.binary_specificity_at_sensitivity(rank, elsewhere, min_sensitivity=0.95)
    return Ood(
        auroc=metrics.binary_auroc(rank, elsewhere).item(),
        aupr=metrics.binary_average_precision(rank, elsewhere).item(),
        fpr95=1 - specificity.item(),
    )


def uncertainty(prediction: ClassPrediction, by: Measure) -> Tensor:
    """The measure of all labels, (M,), so that more is less sure."""
    if not isinstance(prediction, ClassPrediction):
        raise TypeError(f"prediction must be a ClassPrediction, got {type(prediction).__name__}")
    check("by", by in _MEASURES, ", ".join(f'"{one}"' for one in _MEASURES[:-1]) + f' or "{_MEASURES[-1]}"', by)
    measure: Tensor = getattr(prediction, by)
    return (-measure if by == "confidence" else measure).flatten()


def groups(values: Tensor) -> tuple[Tensor, Tensor]:
    """The place of each value among the different ones, in ascending order, and how many there are of each."""
    _, group, count = cast("tuple[Tensor, Tensor, Tensor]", values.unique(return_inverse=True, return_counts=True))
    return group, count
