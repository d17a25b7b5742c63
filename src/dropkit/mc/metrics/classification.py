"""The quality of class probabilities, given the true classes.

Sources: Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015, and
Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599 (ECE); Nguyen,
O'Connor, "Posterior Calibration and Exploratory Analysis for Natural Language Processing Models", EMNLP 2015,
arXiv:1508.05154 (bins of equal mass); Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly
Weather Review 78, 1950; Geifman, Uziel, El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers",
ICLR 2019, arXiv:1805.08206 (the area under risk and coverage).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from dropkit.arguments import check, counted
from dropkit.mc.metrics.common import line, plain, standard_error
from dropkit.mc.metrics.ood import Measure, groups, uncertainty
from dropkit.mc.prediction import ClassPrediction


@dataclass(frozen=True, slots=True)
class Bin:
    """The labels whose confidence is in [low, high); the last bin holds 1, too.

    Attributes:
        count: of labels.
        confidence, accuracy: their means; not a number where there are no labels.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, eq=False)
class RiskCoverage:
    """What the error would be if the least sure labels were left to somebody else.

    Attributes:
        by: the measure that labels are ordered by, the surest first.
        coverage: (M,), the fractions 1/M, 2/M, ... 1 of labels that are kept.
        risk: (M,), the error of those. Of labels that are equally sure any may come first: this is the mean over all
            orders.
        area: under the risk: its mean.
    """

    by: Measure
    coverage: Tensor
    risk: Tensor
    area: float

    def at(self, coverage: float) -> float:
        """The error of the surest labels, the fraction `coverage` of all, at least one."""
        check("coverage", 0 <= coverage <= 1, "in [0, 1]", coverage)
        return self.risk[max(1, round(coverage * len(self.risk))) - 1].item()


_NUMBERS = ("error", "nll", "brier", "overconfidence", "ece", "ece_adaptive")


@dataclass(frozen=True, slots=True, eq=False)
class ClassQuality:
    """How good class probabilities are.

    Attributes:
        error: the fraction of wrong labels.
        nll: -log of the probability of the true class, in nats per label. A probability below the least that float32
            can hold, 1.2e-38, counts as that: 87 nats.
        brier: the squared distance from the truth, summed over all classes: in [0, 2], with two classes twice the
            binary score.
        overconfidence: mean confidence less accuracy: positive where the model is too sure, negative where it doubts
            too much.
        ece: the mean distance of confidence from accuracy, over bins of equal width.
        ece_adaptive: the same over bins of equally many labels; a label that is as sure as its neighbours counts as
            their mean, so that the order of inputs does not matter.
        standard_error: of `error`, `nll`, `brier` and `overconfidence`, over inputs; not a number for one input.
        reliability: the bins of `ece`.
        risk_coverage: the error, if unsure labels are left out.
        count: of labels.
    """

    error: float
    nll: float
    brier: float
    overconfidence: float
    ece: float
    ece_adaptive: float
    standard_error: Mapping[str, float]
    reliability: tuple[Bin, ...]
    risk_coverage: RiskCoverage
    count: int

    def table(self) -> str:
        """The numbers as aligned text; bins that hold no label are left out."""
        numbers = [line(name, getattr(self, name), self.standard_error.get(name)) for name in _NUMBERS]
        risk = self.risk_coverage
        kept = [line(f"error of the surest {part:.0%}", risk.at(part)) for part in (0.5, 0.8, 0.9)]
        bins = [
            f"{one.low:6.3f} to {one.high:.3f} {one.count:>9} {one.confidence:>11.4f} {one.accuracy:>9.4f}"
            for one in self.reliability
            if one.count
        ]
        return "\n".join(
            [
                line("labels", self.count),
                *numbers,
                "",
                line(f"risk area by {risk.by}", risk.area),
                *kept,
                "",
                f"{'confidence':<15} {'labels':>9} {'confidence':>11} {'accuracy':>9}",
                *bins,
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; None for what is not a finite number."""
        return cast("dict[str, Any]", plain(self))


def class_quality(prediction: ClassPrediction, y: Tensor, bins: int = 15, by: Measure = "entropy") -> ClassQuality:
    """Compare class probabilities with the true classes.

    Args:
        y: the true classes, integers in [0, classes).
        bins: of the two calibration errors, at least 1.
        by: the measure of uncertainty that orders labels for `risk_coverage`.

    Shape:
        y: (N, ...), that of `prediction.label`.

    Raises:
        TypeError: `y` does not hold integers.
        ValueError: `y` has another shape or a class that is not there; `bins` or `by` is out of range.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
        >>> r = dropkit.mc.predict(model, torch.randn(5, 4), samples=20, seed=0)
        >>> q = class_quality(r, torch.tensor([0, 2, 1, 1, 0]))
        >>> 0 <= q.brier <= 2, len(q.reliability)
        (True, 15)
    """
    bins = counted("bins", bins)
    unsure = uncertainty(prediction, by)
    y = _labels(prediction, y)
    p, label, confidence = prediction.mean.double(), prediction.label, prediction.confidence
    right = (label == y).double()
    true = p.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    each = {
        "error": 1 - right,
        "nll": -true.clamp(min=torch.finfo(torch.float32).tiny).log(),
        "brier": p.square().sum(-1) - 2 * true + 1,
        "overconfidence": confidence.double() - right,
    }
    reliability = _reliability(confidence.flatten(), right.flatten(), bins)
    return ClassQuality(
        **{name: values.mean().item() for name, values in each.items()},
        # From the bins, since torchmetrics counts in float32: of 4 million labels it makes 0.233 of an error of 0.2.
        ece=sum(one.count * abs(one.confidence - one.accuracy) for one in reliability if one.count) / y.numel(),
        ece_adaptive=_adaptive(confidence.flatten(), each["overconfidence"].flatten(), bins),
        standard_error={name: standard_error(values) for name, values in each.items()},
        reliability=reliability,
        risk_coverage=_risk_coverage(unsure, each["error"].flatten(), by),
        count=y.numel(),
    )


def _labels(prediction: ClassPrediction, y: Tensor) -> Tensor:
    y = torch.as_tensor(y).cpu()
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"y must hold classes as integers, got {y.dtype}")
    shape, classes = tuple(prediction.mean.shape[:-1]), prediction.mean.shape[-1]
    got = str(tuple(y.shape))
    if y.dim() > 1 and y.dim() == len(shape) and len(y) == len(prediction):
        got += "; if its dimensions are right, give predict the class_dim that they leave"
    check("y", tuple(y.shape) == shape, f"of shape {shape}", got)
    least, most = int(y.min()), int(y.max())
    check("y", least >= 0 and most < classes, f"in [0, {classes})", least if least < 0 else most)
    return y.long()


def _reliability(confidence: Tensor, right: Tensor, bins: int) -> tuple[Bin, ...]:
    # In float32, as confidences are: 0.7 begins the bin of 0.7.
    edges = torch.linspace(0, 1, bins + 1)
    place = (torch.bucketize(confidence, edges, right=True) - 1).clamp(max=bins - 1)
    count = place.bincount(minlength=bins)
    means = [place.bincount(weights=one.double(), minlength=bins) / count for one in (confidence, right)]
    columns = cast("list[list[float]]", torch.stack([edges[:-1], edges[1:], count, *means]).tolist())
    return tuple(
        Bin(low, high, int(size), confident, accurate)
        for low, high, size, confident, accurate in zip(*columns, strict=True)
    )


def _adaptive(confidence: Tensor, over: Tensor, bins: int) -> float:
    """ECE over bins of equally many labels, from the confidence of each and its confidence less its accuracy."""
    parts = _in_order(over, confidence).tensor_split(bins)
    return sum(part.sum().abs().item() for part in parts) / len(over)


def _risk_coverage(unsure: Tensor, error: Tensor, by: Measure) -> RiskCoverage:
    kept = torch.arange(1, len(error) + 1, dtype=torch.float64)
    risk = _in_order(error, unsure).cumsum(0) / kept
    return RiskCoverage(by, kept / len(error), risk, risk.mean().item())


def _in_order(values: Tensor, by: Tensor) -> Tensor:
    """Values by ascending `by`; where that is equal each is their mean, so that the order of inputs does not matter."""
    group, count = groups(by)
    return (group.bincount(weights=values) / count).repeat_interleave(count)
