"""Split conformal prediction: sets of classes or labels, and intervals of values, that hold the truth.

The threshold is taken from inputs that were not trained on. If these and the new inputs are exchangeable, a new input's
set or interval holds the truth with a probability of at least `level`, and of at most level + 1 / (n + 1) where scores
do not tie, whatever the model is: on average over inputs, not for each kind of input.

Where an input has many labels, one threshold serves all of them: the expected fraction of an input's labels that are
held is at least `level`, by conformal risk control, which for one label is the same. Padding does not count. Or each
position has a threshold of its own, from the inputs that have a label there. Where several labels may be true, only
true ones count: the sets hold, on average, at least that fraction of an input's true labels.

Sources: Papadopoulos, Proedrou, Vovk, Gammerman, "Inductive Confidence Machines for Regression", ECML 2002 (the split);
Sadinle, Lei, Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels", 2019, arXiv:1609.00451
("threshold"); Romano, Sesia, Candes, "Classification with Valid and Adaptive Coverage", 2020, arXiv:2006.02544 ("aps",
here without random numbers); Angelopoulos, Bates, Malik, Jordan, "Uncertainty Sets for Image Classifiers using
Conformal Prediction", 2021, arXiv:2009.14193 ("raps"); Lei, G'Sell, Rinaldo, Tibshirani, Wasserman, "Distribution-Free
Predictive Inference for Regression", 2018, arXiv:1604.04173 ("scaled"); Romano, Patterson, Candes, "Conformalized
Quantile Regression", 2019, arXiv:1905.03222 ("cqr"); Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal Risk
Control", 2022, arXiv:2208.02814 (one threshold for many labels, and the false negative rate); Vovk, Gammerman, Shafer,
"Algorithmic Learning in a Random World", 2005, section 4.5 (a threshold for each true label).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.mc import metrics
from dropkit.mc.measures import IGNORED, ClassMeasures, MultilabelMeasures, ValueMeasures, must_hold_classes
from dropkit.mc.metrics.classification import counted_classes
from dropkit.mc.metrics.regression import counted_values, true_values
from dropkit.public_names import public_names

__all__ = [
    "ConformalIntervals",
    "ConformalLabels",
    "ConformalSets",
    "conformal_intervals",
    "conformal_labels",
    "conformal_sets",
]

SetMethod = Literal["aps", "raps", "threshold"]
IntervalMethod = Literal["scaled", "cqr"]
# Relative error of sums of weights.
_SLACK = 1e-9
# Of RAPS: what each class beyond so many adds to the score.
_PENALTY, _FREE_CLASSES = 0.01, 5


@dataclass(frozen=True, slots=True, eq=False)
class ConformalSets:
    """Makes sets of classes; call it with a prediction.

    Attributes:
        threshold: (...), for each label of an input, or one number: the largest score of a class in a set.
        level: the probability with which a set holds the true class, at least.
        method: how classes are scored.
        count: how many inputs there were.
    """

    threshold: Tensor
    level: float
    method: SetMethod
    count: int

    def __call__(self, prediction: ClassMeasures) -> Tensor:
        """Return the classes in the set of each label, (N, ..., classes), bool; none at padding, else one or more."""
        p = must_hold_classes(prediction).mean
        _check_positions(self.threshold, prediction.label_shape)
        in_set = _class_scores(p, self.method) <= self.threshold.unsqueeze(-1)
        return in_set.scatter(-1, p.argmax(-1, keepdim=True), True) & ~p.isnan()


@dataclass(frozen=True, slots=True, eq=False)
class ConformalLabels:
    """Makes sets of labels of which several may be true; call it with a prediction.

    Attributes:
        threshold: (..., L), for each label, or one number: the largest 1 - probability of a label in a set.
        level: the expected fraction of an input's true labels that its set holds, at least; with a threshold for each
            label the probability that the set holds this label where it is true.
        count: how many inputs there were.
    """

    threshold: Tensor
    level: float
    count: int

    def __call__(self, prediction: MultilabelMeasures) -> Tensor:
        """Return which labels are in the set, (N, ..., L), bool; none at padding."""
        if not isinstance(prediction, MultilabelMeasures):  # pyright: ignore[reportUnnecessaryIsInstance] (checked)
            raise TypeError(f"prediction must be a MultilabelPrediction, got {type(prediction).__name__}")
        _check_positions(self.threshold, prediction.label_shape)
        return 1 - prediction.mean.double() <= self.threshold


@dataclass(frozen=True, slots=True, eq=False)
class ConformalIntervals:
    """Makes intervals of values; call it with a prediction.

    Attributes:
        threshold: (...), for each value of an input, or one number: the largest score of a value in an interval.
        level: the probability with which an interval holds the true value, at least.
        method: how values are scored.
        count: how many inputs there were.
        tau: precision of the noise; None for none.
    """

    threshold: Tensor
    level: float
    method: IntervalMethod
    count: int
    tau: float | None

    def __call__(self, prediction: ValueMeasures) -> tuple[Tensor, Tensor]:
        """Return the ends of the interval of each value, both (N, ...): infinite for too few inputs, nan at padding."""
        if not isinstance(prediction, ValueMeasures):  # pyright: ignore[reportUnnecessaryIsInstance] (checked)
            raise TypeError(f"prediction must be a ValuePrediction, got {type(prediction).__name__}")
        _check_positions(self.threshold, prediction.label_shape)
        low, high = _unit_interval(prediction, self.level, self.tau)
        middle, reach = (low + high) / 2, (high - low) / 2
        wider = reach * self.threshold if self.method == "scaled" else reach + self.threshold
        # An interval of no width may be scaled by an infinite threshold; a negative one of "cqr" is empty.
        wider = wider.nan_to_num(math.inf, math.inf).clamp(min=0)
        return (middle - wider).float(), (middle + wider).float()


def conformal_sets(
    prediction: ClassMeasures, y: Tensor, level: float = 0.9, method: SetMethod = "aps", each: bool = False
) -> ConformalSets:
    """Calibrate sets of classes on held-out inputs.

    Args:
        prediction: for the held-out inputs.
        y: their true classes, (N, ...), as for `metrics.classification_report`; neither -100 nor padding counts.
        level: in (0, 1).
        method: "aps" for sets that grow where the model is uncertain; "raps", the same with a penalty of 0.01 on each
            class after the fifth, for many classes; "threshold" for the smallest sets on average.
        each: give each label of an input a threshold of its own, so that each is held with probability `level`; then
            new inputs must have as many. Otherwise one threshold serves tokens or pixels of any number.

    Returns:
        What makes the set of a new prediction. With fewer than level / (1 - level) inputs it holds every class.
    """
    check("level", 0 < level < 1, "in (0, 1)", level)
    check("method", method in ("aps", "raps", "threshold"), '"aps", "raps" or "threshold"', method)
    counted, y = counted_classes(must_hold_classes(prediction), y)
    scores = _class_scores(prediction.mean, method).gather(-1, y.unsqueeze(-1)).squeeze(-1)
    return ConformalSets(_threshold(scores, counted, level, each), level, method, len(y))


def conformal_labels(
    prediction: MultilabelMeasures, y: Tensor, level: float = 0.9, each: bool = False
) -> ConformalLabels:
    """Calibrate sets of labels on held-out inputs: labels likely enough that few true ones are missed.

    Args:
        prediction: for the held-out inputs.
        y: their true labels, (N, ..., L), 1 or 0 each; -100 does not count, nor padding.
        level: in (0, 1): one less the false negative rate, on average over the inputs that have a true label.
        each: give each label a threshold of its own, so that each is found with probability `level` where it is true.

    Returns:
        What makes the set of a new prediction. With fewer than level / (1 - level) inputs that have a true label, or
        that label, it holds every one.
    """
    check("level", 0 < level < 1, "in (0, 1)", level)
    y = torch.as_tensor(y).cpu()
    check("y", tuple(y.shape) == prediction.label_shape, f"of shape {prediction.label_shape}", tuple(y.shape))
    is_label = (y == 0) | (y == 1) | (y == IGNORED)
    check(
        "y", bool(is_label.all()), f"1 or 0 for each label, or {IGNORED}", (~is_label).any() and y[~is_label][0].item()
    )
    is_true = y == 1 if prediction.valid is None else (y == 1) & prediction.valid
    check("y", bool(is_true.any()), "true for some label", "none")
    return ConformalLabels(_threshold(1 - prediction.mean.double(), is_true, level, each), level, len(y))


def conformal_intervals(
    prediction: ValueMeasures,
    y: Tensor,
    level: float = 0.9,
    method: IntervalMethod = "scaled",
    tau: float | None = None,
    each: bool | None = None,
) -> ConformalIntervals:
    """Calibrate intervals of values on held-out inputs.

    Args:
        prediction: for the held-out inputs.
        y: their true values, (N, ...); anything at padding.
        level: in (0, 1).
        method: "scaled" multiplies the standard deviation of each value, noise included, by one number; "cqr" adds one
            number to both sides of its central interval.
        tau: precision of the noise, 1 / variance, which is added to the variance of the samples; none if None.
        each: give each value of an input a threshold of its own, as outputs in other units need; otherwise one serves
            all of them. If None, unless there is padding, as in series of different length.

    Returns:
        What makes the intervals of a new prediction. With fewer than level / (1 - level) inputs they are infinite.
    """
    check("method", method in ("scaled", "cqr"), '"scaled" or "cqr"', method)
    low, high = _unit_interval(prediction, level, tau)
    counted, y = counted_values(prediction), true_values(prediction, y)
    check("y", not bool(y[counted].isnan().any()), "numbers where values count", "nan")
    distance = (y - (low + high) / 2).abs()
    reach = (high - low) / 2
    # 0 / 0 is a true value at an interval of no width, which holds it.
    scores = (distance / reach).where((distance > 0) | (reach > 0), 0.0) if method == "scaled" else distance - reach
    each = prediction.valid is None if each is None else each
    return ConformalIntervals(_threshold(scores, counted, level, each), level, method, len(scores), tau)


def _threshold(scores: Tensor, counted: Tensor, level: float, each: bool) -> Tensor:
    """The smallest score that is at least as large as (n + 1) level of those of n inputs; infinite if there is none.

    Args:
        scores: (N, ...).
        counted: which of them count, (N, ...). An input that has several counts each as a part of one.
        each: find one in each column, (...), from the inputs that have a score there.
    """
    shape = scores.shape[1:] if each else ()
    weight = counted.double().flatten(1) if counted.dim() > 1 else counted.double().unsqueeze(1)
    if not each:
        weight = (weight / weight.sum(1, keepdim=True)).where(weight > 0, 0.0)
    weight = weight.reshape(-1, math.prod(shape))
    scores, order = scores.reshape(weight.shape).where(weight > 0, math.inf).double().sort(0)
    count = weight.sum(0)
    # Not quite: 0.9 * 10 may be a little more than 9, and a sum of parts a little less than 9.
    is_enough = weight.gather(0, order).cumsum(0) >= (count + 1) * level * (1 - _SLACK)
    scores = torch.cat([scores, scores.new_full((1, scores.shape[1]), math.inf)])
    return scores.gather(0, (~is_enough).sum(0, keepdim=True)).reshape(shape)


def _check_positions(threshold: Tensor, label_shape: tuple[int, ...]) -> None:
    """Raise an error if an input has other labels than the thresholds of each."""
    shape = tuple(threshold.shape)
    wanted = f"of {shape} labels an input, each with its threshold; each=False has one for all"
    check("prediction", not shape or label_shape[1:] == shape, wanted, label_shape[1:])


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


def __dir__() -> list[str]:
    return public_names(globals())
