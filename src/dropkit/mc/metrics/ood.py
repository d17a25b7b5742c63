"""Detection of out-of-distribution inputs by a measure of uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dropkit.extras import needed_for
from dropkit.mc.measures import (
    ClassMeasures,
    MultilabelMeasures,
    must_hold_labels,
    uncertainty,
    uncertainty_of_inputs,
)
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


def ood(
    inside: ClassMeasures | MultilabelMeasures,
    outside: ClassMeasures | MultilabelMeasures,
    by: str = "mutual_information",
) -> OODMetrics:
    """Measure how well a measure of uncertainty separates out-of-distribution inputs, which should be more uncertain.

    Args:
        inside: the prediction for inputs like the training inputs. Of classes of tokens or pixels each counts, without
            padding; of labels of which several may be true each input, with the sum or mean of `acquisition.score`.
        outside: the prediction for out-of-distribution inputs.
        by: the name of the measure.

    Raises:
        ImportError: torchmetrics is not installed.
        TypeError: a prediction holds values.
        ValueError: `by` is not a measure of uncertainty.
    """
    with needed_for("ood"):
        from torchmetrics.functional import classification as metrics
    measures = [_counted(must_hold_labels(prediction), by) for prediction in (inside, outside)]
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


def _counted(prediction: ClassMeasures | MultilabelMeasures, by: str) -> Tensor:
    """The uncertainty of each input, or of each of its tokens or pixels."""
    if isinstance(prediction, MultilabelMeasures):
        return uncertainty_of_inputs(prediction, by)
    measure = uncertainty(prediction, by)
    return measure.flatten() if prediction.valid is None else measure[prediction.valid]
