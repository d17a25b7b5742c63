"""Detection of out-of-distribution inputs by a measure of uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dropkit.extras import needed_for
from dropkit.mc.measures import ClassMeasures, must_hold_classes, uncertainty
from dropkit.mc.metrics.common import group_equal


@dataclass(frozen=True, slots=True)
class OODMetrics:
    """How well a measure of uncertainty separates out-of-distribution inputs, which are the positives.

    Attributes:
        auroc: the probability that an out-of-distribution input is more uncertain than one in distribution; 0.5 for an
            uninformative measure.
        aupr: average precision; for an uninformative measure the fraction of out-of-distribution inputs.
        fpr95: the fraction of in-distribution inputs that a threshold rejects which rejects 95 % of the others.
    """

    auroc: float
    aupr: float
    fpr95: float


def ood(inside: ClassMeasures, outside: ClassMeasures, by: str = "mutual_information") -> OODMetrics:
    """Measure how well a measure of uncertainty separates out-of-distribution inputs, which should be more uncertain.

    Args:
        inside: the prediction for inputs like the training inputs.
        outside: the prediction for out-of-distribution inputs.
        by: the name of the measure.

    Raises:
        ImportError: torchmetrics is not installed.
        TypeError: a prediction does not hold classes.
        ValueError: `by` is not a measure of uncertainty.
    """
    with needed_for("ood"):
        from torchmetrics.functional import classification as metrics
    measures = [uncertainty(must_hold_classes(prediction), by).flatten() for prediction in (inside, outside)]
    # Ranks, since torchmetrics takes numbers outside of [0, 1] for logits, and large logits are all 1 in float32.
    rank = group_equal(torch.cat(measures))[0].double()
    rank = rank / rank.amax().clamp(min=1)
    is_outside = torch.cat([torch.full((len(measure),), number) for number, measure in enumerate(measures)])
    specificity, _ = metrics.binary_specificity_at_sensitivity(rank, is_outside, min_sensitivity=0.95)
    return OODMetrics(
        auroc=metrics.binary_auroc(rank, is_outside).item(),
        aupr=metrics.binary_average_precision(rank, is_outside).item(),
        fpr95=1 - specificity.item(),
    )
