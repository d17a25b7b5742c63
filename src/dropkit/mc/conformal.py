"""Split conformal prediction: sets of classes and intervals of values that hold the truth as often as they say.

The threshold is taken from inputs that were not trained on. If these and the new inputs are exchangeable, a new input's
set or interval holds the truth with a probability of at least `level`, and of at most level + 1 / (n + 1) where scores
do not tie, whatever the model is: on average over inputs, not for each kind of input.

Sources: Papadopoulos, Proedrou, Vovk, Gammerman, "Inductive Confidence Machines for Regression", ECML 2002 (the split);
Sadinle, Lei, Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels", 2019, arXiv:1609.00451
("threshold"); Romano, Sesia, Candes, "Classification with Valid and Adaptive Coverage", 2020, arXiv:2006.02544 ("aps",
here without random numbers); Angelopoulos, Bates, Malik, Jordan, "Uncertainty Sets for Image Classifiers using
Conformal Prediction", 2021, arXiv:2009.14193 ("raps"); Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, "Distribution-Free
Predictive Inference for Regression", 2018, arXiv:1604.04173 ("scaled"); Romano, Patterson, Candes, "Conformalized
Quantile Regression", 2019, arXiv:1905.03222 ("cqr").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.mc import metrics
from dropkit.mc.measures import ClassMeasures, ValueMeasures, must_hold_classes
from dropkit.mc.metrics.classification import true_classes
from dropkit.mc.metrics.regression import true_values

SetMethod = Literal["aps", "raps", "threshold"]
IntervalMethod = Literal["scaled", "cqr"]
# Of RAPS: what each class beyond so many adds to the score.
_PENALTY, _FREE_CLASSES = 0.01, 5


@dataclass(frozen=True, slots=True, eq=False)
class ConformalSets:
    """Makes sets of classes; call it with a prediction.

    Attributes:
        threshold: (...), for each label of an input: the largest score of a class in a set.
        level: the probability with which a set holds the true class, at least.
        method: how classes are scored.
        count: how many inputs the threshold was taken from.
    """

    threshold: Tensor
    level: float
    method: SetMethod
    count: int

    def __call__(self, prediction: ClassMeasures) -> Tensor:
        """Return the classes in the set of each label, (N, ..., classes), bool; the likeliest is always one."""
        p = must_hold_classes(prediction).mean
        in_set = _class_scores(p, self.method) <= self.threshold.unsqueeze(-1)
        return in_set.scatter(-1, p.argmax(-1, keepdim=True), True)


@dataclass(frozen=True, slots=True, eq=False)
class ConformalIntervals:
    """Makes intervals of values; call it with a prediction.

    Attributes:
        threshold: (...), for each value of an input: the largest score of a value in an interval.
        level: the probability with which an interval holds the true value, at least.
        method: how values are scored.
        count: how many inputs the threshold was taken from.
        tau: precision of the noise; None for none.
    """

    threshold: Tensor
    level: float
    method: IntervalMethod
    count: int
    tau: float | None

    def __call__(self, prediction: ValueMeasures) -> tuple[Tensor, Tensor]:
        """Return the ends of the interval of each value, both (N, ...); infinite for too few held-out inputs."""
        low, high = _unit_interval(prediction, self.level, self.tau)
        middle, reach = (low + high) / 2, (high - low) / 2
        wider = reach * self.threshold if self.method == "scaled" else reach + self.threshold
        # An interval of no width may be scaled by an infinite threshold; a negative one of "cqr" is empty.
        wider = wider.nan_to_num(math.inf, math.inf).clamp(min=0)
        return (middle - wider).float(), (middle + wider).float()


def conformal_sets(
    prediction: ClassMeasures, y: Tensor, level: float = 0.9, method: SetMethod = "aps"
) -> ConformalSets:
    """Calibrate sets of classes on held-out inputs.

    Args:
        prediction: for the held-out inputs.
        y: their true classes, (N, ...), as for `metrics.classification_report`.
        level: in (0, 1).
        method: "aps" for sets that grow where the model is uncertain; "raps", the same with a penalty of 0.01 on each
            class after the fifth, for many classes; "threshold" for the smallest sets on average.

    Returns:
        What makes the set of a new prediction. With fewer than level / (1 - level) inputs it holds every class.
    """
    check("level", 0 < level < 1, "in (0, 1)", level)
    check("method", method in ("aps", "raps", "threshold"), '"aps", "raps" or "threshold"', method)
    y = true_classes(must_hold_classes(prediction), y)
    scores = _class_scores(prediction.mean, method).gather(-1, y.unsqueeze(-1)).squeeze(-1)
    return ConformalSets(_threshold(scores, level), level, method, len(y))


def conformal_intervals(
    prediction: ValueMeasures,
    y: Tensor,
    level: float = 0.9,
    method: IntervalMethod = "scaled",
    tau: float | None = None,
) -> ConformalIntervals:
    """Calibrate intervals of values on held-out inputs.

    Args:
        prediction: for the held-out inputs.
        y: their true values, (N, ...).
        level: in (0, 1).
        method: "scaled" multiplies the standard deviation of each value, noise included, by one number; "cqr" adds one
            number to both sides of its central interval.
        tau: precision of the noise, 1 / variance, which is added to the variance of the samples; none if None.

    Returns:
        What makes the intervals of a new prediction. With fewer than level / (1 - level) inputs they are infinite.
    """
    check("method", method in ("scaled", "cqr"), '"scaled" or "cqr"', method)
    low, high = _unit_interval(prediction, level, tau)
    distance = (true_values(prediction, y) - (low + high) / 2).abs()
    reach = (high - low) / 2
    # 0 / 0 is a true value at an interval of no width, which holds it.
    scores = (distance / reach).where((distance > 0) | (reach > 0), 0.0) if method == "scaled" else distance - reach
    return ConformalIntervals(_threshold(scores, level), level, method, len(scores), tau)


def _threshold(scores: Tensor, level: float) -> Tensor:
    """The smallest of n scores (along the first dimension) that is at least as large as (n + 1) level of them."""
    scores = scores.double()
    # Rounded first: 0.9 * 10 must not be a little more than 9.
    rank = math.ceil(round((len(scores) + 1) * level, 9))
    if rank > len(scores):
        return torch.full_like(scores[0], math.inf)
    return scores.sort(0).values[rank - 1]


def _class_scores(p: Tensor, method: SetMethod) -> Tensor:
    """The score of each class, (N, ..., classes), float64: the higher, the less likely it is the true one."""
    p = p.double()
    if method == "threshold":
        return 1 - p
    order = p.argsort(dim=-1, descending=True, stable=True)
    scores = p.gather(-1, order).cumsum(-1)
    if method == "raps":
        scores = scores + _PENALTY * (torch.arange(1, p.shape[-1] + 1) - _FREE_CLASSES).clamp(min=0)
    return torch.empty_like(p).scatter(-1, order, scores)


def _unit_interval(prediction: ValueMeasures, level: float, tau: float | None) -> tuple[Tensor, Tensor]:
    """The interval of the samples, in float64, to which one number is fitted."""
    low, high = metrics.interval(prediction, level, tau)
    return low.double(), high.double()
