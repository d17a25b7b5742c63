"""Metrics of class probabilities, given the true classes: error, likelihood, calibration, risk against coverage.

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

from dropkit.arguments import check, positive_int
from dropkit.mc.measures import IGNORED, ClassMeasures, must_hold_classes, uncertainty
from dropkit.mc.metrics.common import group_equal, line, plain, standard_error
from dropkit.mc.metrics.comparison import Comparison, difference


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The labels with a confidence in [low, high); the last bin includes 1.

    Attributes:
        count: how many labels the bin holds.
        confidence, accuracy: means over the labels; not a number where there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, eq=False)
class RiskCoverage:
    """The error if predictions are made for the least uncertain labels only (selective prediction).

    Attributes:
        by: the measure that orders the labels, the least uncertain first.
        coverage: (M,), the fractions 1/M, 2/M, ... 1 of labels that are kept.
        risk: (M,), the error of the labels that are kept; the mean over all orders of labels that are equally
            uncertain.
        area: the area under the risk-coverage curve: the mean risk.
    """

    by: str
    coverage: Tensor
    risk: Tensor
    area: float

    def at(self, coverage: float) -> float:
        """Return the error of the least uncertain labels, the fraction `coverage` of all, at least one."""
        check("coverage", 0 <= coverage <= 1, "in [0, 1]", coverage)
        return self.risk[max(1, round(coverage * len(self.risk))) - 1].item()


_NUMBERS = ("error", "nll", "brier", "overconfidence", "ece", "ece_adaptive")


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationReport:
    """How good class probabilities are.

    Attributes:
        error: the fraction of wrong labels.
        nll: -log of the probability of the true class, in nats per label. A probability below the least that float32
            can hold, 1.2e-38, counts as that: 87 nats.
        brier: the squared distance from the one-hot label, summed over all classes: in [0, 2], with two classes twice
            the binary score.
        overconfidence: mean confidence less accuracy: positive for an overconfident model, negative for an
            underconfident one.
        ece: expected calibration error: the mean distance of confidence from accuracy, over bins of equal width.
        ece_adaptive: the same over bins of equally many labels; labels of equal confidence count as their mean, so that
            the order of inputs does not matter.
        standard_error: of `error`, `nll`, `brier` and `overconfidence`, over inputs; not a number for one input.
        reliability: the bins of `ece`.
        risk_coverage: the error if uncertain labels are left out.
        count: how many labels there are.
        comparison: with the plain pass, of `error`, `nll`, `brier` and `ece`; None if there was none.
    """

    error: float
    nll: float
    brier: float
    overconfidence: float
    ece: float
    ece_adaptive: float
    standard_error: Mapping[str, float]
    reliability: tuple[ReliabilityBin, ...]
    risk_coverage: RiskCoverage
    count: int
    comparison: Comparison | None = None

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Return the numbers as aligned text, without bins that hold no label."""
        numbers = [line(name, getattr(self, name), self.standard_error.get(name)) for name in _NUMBERS]
        risk = self.risk_coverage
        surest = [line(f"error of the surest {part:.0%}", risk.at(part)) for part in (0.5, 0.8, 0.9)]
        bins = [
            f"{b.low:6.3f} to {b.high:.3f} {b.count:>9} {b.confidence:>11.4f} {b.accuracy:>9.4f}"
            for b in self.reliability
            if b.count
        ]
        return "\n".join(
            [
                line("labels", self.count),
                *numbers,
                "",
                *([] if self.comparison is None else [self.comparison.table(), ""]),
                line(f"risk area by {risk.by}", risk.area),
                *surest,
                "",
                f"{'confidence':<15} {'labels':>9} {'confidence':>11} {'accuracy':>9}",
                *bins,
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; None for what is not a finite number."""
        return cast("dict[str, Any]", plain(self))


def classification_report(
    prediction: ClassMeasures, y: Tensor, bins: int = 15, by: str = "entropy"
) -> ClassificationReport:
    """Compare class probabilities with the true classes.

    Args:
        y: the true classes, integers in [0, classes); -100 for labels to ignore. Padding is ignored, too.
        bins: how many bins the two calibration errors have, at least 1.
        by: the name of the measure of uncertainty that orders labels for `risk_coverage`.

    Shape:
        y: (N, ...), that of `prediction.label`.

    Raises:
        TypeError: `y` does not hold integers, or `prediction` no classes.
        ValueError: `y` has another shape or a class that does not exist; `bins` or `by` is out of range.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
        >>> r = dropkit.mc.predict(model, torch.randn(5, 4), samples=20, seed=0)
        >>> report = classification_report(r, torch.tensor([0, 2, 1, 1, 0]))
        >>> 0 <= report.brier <= 2, len(report.reliability)
        (True, 15)
    """
    bins = positive_int("bins", bins)
    uncertainties = uncertainty(must_hold_classes(prediction), by)
    counted, y = counted_classes(prediction, y)
    losses, confidence = _losses(prediction.mean, y), prediction.mean.amax(-1).where(counted, 0.0)
    losses = {name: values.where(counted, 0.0) for name, values in losses.items()}
    error, excess = losses["error"][counted], losses["overconfidence"]
    reliability = _reliability(confidence[counted], 1 - error, bins)
    return ClassificationReport(
        **{name: values[counted].mean().item() for name, values in losses.items()},
        ece=_calibration(confidence, excess, bins)[counted].mean().item(),
        ece_adaptive=_adaptive(confidence[counted], excess[counted], bins),
        standard_error={name: standard_error(values, counted) for name, values in losses.items()},
        reliability=reliability,
        risk_coverage=_risk_coverage(uncertainties[counted], error, by),
        count=len(error),
        comparison=None
        if prediction.plain is None
        else _comparison(losses, confidence, prediction.plain, y, bins, counted),
    )


def counted_classes(prediction: ClassMeasures, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return which labels count, not at padding and not -100, and the true classes as int64, 0 where they do not count.

    Raises:
        TypeError: `y` does not hold integers.
        ValueError: they are not classes of this prediction, or none counts.
    """
    y = torch.as_tensor(y).cpu()
    if tuple(y.shape) != prediction.label_shape:
        return torch.ones(prediction.label_shape, dtype=torch.bool), _true_classes(prediction, y)
    counted = y != IGNORED
    if prediction.valid is not None:
        counted &= prediction.valid
    check("y", bool(counted.any()), "at least one label that counts", "none")
    return counted, _true_classes(prediction, y.masked_fill(~counted, 0))


def _losses(mean: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What each label adds to the numbers of a report, (N, ...), float64."""
    p = mean.double()
    true = p.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    is_right = (mean.argmax(-1) == y).double()
    return {
        "error": 1 - is_right,
        "nll": -true.clamp(min=torch.finfo(torch.float32).tiny).log(),
        "brier": p.square().sum(-1) - 2 * true + 1,
        "overconfidence": mean.amax(-1).double() - is_right,
    }


def _comparison(
    losses: Mapping[str, Tensor], confidence: Tensor, plain: Tensor, y: Tensor, bins: int, counted: Tensor
) -> Comparison:
    others = {name: values.where(counted, 0.0) for name, values in _losses(plain, y).items()}
    other_confidence = plain.amax(-1).where(counted, 0.0)
    pairs = {name: (losses[name], others[name]) for name in ("error", "nll", "brier")}
    pairs["ece"] = (
        _calibration(confidence, losses["overconfidence"], bins),
        _calibration(other_confidence, others["overconfidence"], bins),
    )
    return Comparison(
        {
            name: difference(
                of_samples[counted].mean().item(),
                of_plain[counted].mean().item(),
                of_samples - of_plain,
                counted=counted,
            )
            for name, (of_samples, of_plain) in pairs.items()
        }
    )


def _calibration(confidence: Tensor, excess: Tensor, bins: int) -> Tensor:
    """What each label adds to the ECE, (N, ...): its confidence less its accuracy, with the sign of its bin's.

    In float64, since torchmetrics counts in float32: of 4 million labels it makes 0.233 of an error of 0.2.
    """
    number = _bin_of(confidence, bins)
    total = number.flatten().bincount(weights=excess.flatten(), minlength=bins)
    return excess * total.sign()[number]


def _bin_of(confidence: Tensor, bins: int) -> Tensor:
    # In float32, as confidences are: 0.7 begins the bin of 0.7.
    return (torch.bucketize(confidence, torch.linspace(0, 1, bins + 1), right=True) - 1).clamp(max=bins - 1)


def _true_classes(prediction: ClassMeasures, y: Tensor) -> Tensor:
    """Return true classes as int64, or raise an error if they are not some of this prediction."""
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"y must hold classes as integers, got {y.dtype}")
    shape, classes = prediction.label_shape, prediction.mean.shape[-1]
    got = str(tuple(y.shape))
    if y.dim() > 1 and y.dim() == len(shape) and len(y) == len(prediction):
        got += "; if its dimensions are right, give predict the class_dim that they leave"
    check("y", tuple(y.shape) == shape, f"of shape {shape}", got)
    least, most = int(y.min()), int(y.max())
    wanted = f"in [0, {classes}), or {IGNORED} for labels to ignore"
    check("y", least >= 0 and most < classes, wanted, least if least < 0 else most)
    return y.long()


def _reliability(confidence: Tensor, is_right: Tensor, bins: int) -> tuple[ReliabilityBin, ...]:
    edges, number = torch.linspace(0, 1, bins + 1), _bin_of(confidence, bins)
    count = number.bincount(minlength=bins)
    means = [number.bincount(weights=values.double(), minlength=bins) / count for values in (confidence, is_right)]
    columns = cast("list[list[float]]", torch.stack([edges[:-1], edges[1:], count, *means]).tolist())
    return tuple(
        ReliabilityBin(low, high, int(size), mean_confidence, accuracy)
        for low, high, size, mean_confidence, accuracy in zip(*columns, strict=True)
    )


def _adaptive(confidence: Tensor, excess: Tensor, bins: int) -> float:
    """ECE over bins of equally many labels.

    Args:
        excess: of each label, its confidence less its accuracy.
    """
    parts = _in_order(excess, confidence).tensor_split(bins)
    return sum(part.sum().abs().item() for part in parts) / len(excess)


def _risk_coverage(uncertainties: Tensor, error: Tensor, by: str) -> RiskCoverage:
    count = torch.arange(1, len(error) + 1, dtype=torch.float64)
    risk = _in_order(error, uncertainties).cumsum(0) / count
    return RiskCoverage(by, count / len(error), risk, risk.mean().item())


def _in_order(values: Tensor, by: Tensor) -> Tensor:
    """Values by ascending `by`; the mean where `by` is equal, so that the order of inputs does not matter."""
    group, count = group_equal(by)
    return (group.bincount(weights=values) / count).repeat_interleave(count)
