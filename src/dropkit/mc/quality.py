"""Quality: how good a prediction and its uncertainty are, given the truth.

Sources: Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015, and
Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599 (ECE); Nguyen,
O'Connor, "Posterior Calibration and Exploratory Analysis for Natural Language Processing Models", EMNLP 2015,
arXiv:1508.05154 (bins of equal mass); Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly
Weather Review 78, 1950; Geifman, Uziel, El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers",
ICLR 2019, arXiv:1805.08206 (the area under risk and coverage); Gal, Ghahramani, "Dropout as a Bayesian Approximation",
ICML 2016, arXiv:1506.02142, eq. 8 (the log-likelihood of values).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any, Literal, cast

import torch
from torch import Tensor

from dropkit.mc.prediction import ClassPrediction, ValuePrediction

Measure = Literal["entropy", "mutual_information", "variation_ratio", "confidence"]

_MEASURES = ("entropy", "mutual_information", "variation_ratio", "confidence")
_LEVELS = (0.5, 0.8, 0.9, 0.95)
# Where the likelihood is first looked at: it is smooth over a factor of two in tau, and there may be several hills.
_GRID = 100


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
        _check("coverage", 0 <= coverage <= 1, "in [0, 1]", coverage)
        return self.risk[max(1, round(coverage * len(self.risk))) - 1].item()


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
        numbers = [_line(name, getattr(self, name), self.standard_error.get(name)) for name in _NUMBERS]
        risk = self.risk_coverage
        kept = [_line(f"error of the surest {part:.0%}", risk.at(part)) for part in (0.5, 0.8, 0.9)]
        bins = [
            f"{one.low:6.3f} to {one.high:.3f} {one.count:>9} {one.confidence:>11.4f} {one.accuracy:>9.4f}"
            for one in self.reliability
            if one.count
        ]
        return "\n".join(
            [
                _line("labels", self.count),
                *numbers,
                "",
                _line(f"risk area by {risk.by}", risk.area),
                *kept,
                "",
                f"{'confidence':<15} {'labels':>9} {'confidence':>11} {'accuracy':>9}",
                *bins,
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; None for what is not a finite number."""
        return cast("dict[str, Any]", _plain(self))


_NUMBERS = ("error", "nll", "brier", "overconfidence", "ece", "ece_adaptive")


@dataclass(frozen=True, slots=True)
class Coverage:
    """An interval that should hold the truth with probability `level`: how often it does, and its mean width."""

    level: float
    fraction: float
    width: float


@dataclass(frozen=True, slots=True, eq=False)
class ValueQuality:
    """How good predicted values are.

    Attributes:
        rmse: the root of the mean squared error of the mean.
        log_likelihood: log of the predicted density at the truth, in nats per input.
        tau: the precision of the noise that this was computed with: one over its variance.
        standard_error: of `log_likelihood`, over inputs; not a number for one input.
        coverage: of the intervals of several levels.
        count: of inputs.
    """

    rmse: float
    log_likelihood: float
    tau: float
    standard_error: Mapping[str, float]
    coverage: tuple[Coverage, ...]
    count: int

    def table(self) -> str:
        """The numbers as aligned text."""
        return "\n".join(
            [
                _line("inputs", self.count),
                _line("rmse", self.rmse),
                _line("log_likelihood", self.log_likelihood, self.standard_error["log_likelihood"]),
                _line("tau", self.tau),
                "",
                f"{'interval':<15} {'holds':>9} {'mean width':>11}",
                *(f"{one.level:<15.0%} {one.fraction:>9.2%} {one.width:>11.4g}" for one in self.coverage),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; None for what is not a finite number."""
        return cast("dict[str, Any]", _plain(self))


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
    _check("bins", isinstance(bins, int) and bins >= 1, "an integer of at least 1", bins)
    unsure = _uncertainty(prediction, by)
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
        standard_error={name: _standard_error(values) for name, values in each.items()},
        reliability=reliability,
        risk_coverage=_risk_coverage(unsure, each["error"].flatten(), by),
        count=y.numel(),
    )


def value_quality(prediction: ValuePrediction, y: Tensor, tau: float) -> ValueQuality:
    r"""Compare predicted values with the true ones.

    Of the samples :math:`y_t` of an input with D values and the truth y, the log-likelihood is

    .. math:: \mathrm{logsumexp}_t (-\tau \|y - y_t\|^2 / 2) - \log T - D/2 \log 2\pi + D/2 \log \tau

    and the intervals are those of a normal distribution with the variance of the samples and that of the noise.

    Args:
        prediction: with its draws: `predict(..., keep_samples=True)`.
        y: the true values.
        tau: the precision of the noise, one over its variance, larger than 0; see `fit_tau`.

    Shape:
        y: (N, ...), that of `prediction.mean`.

    Raises:
        ValueError: there are no draws, `y` has another shape, or `tau` is out of range.
    """
    _check("tau", 0 < tau < math.inf, "larger than 0 and finite", tau)
    distances, y = _distances(prediction, y), _values(prediction, y)
    each = _log_likelihoods(distances, prediction.samples, y[0].numel(), tau)
    ends = {level: interval(prediction, level, tau) for level in _LEVELS}
    return ValueQuality(
        rmse=(prediction.mean.double() - y).square().mean().sqrt().item(),
        log_likelihood=each.mean().item(),
        tau=float(tau),
        standard_error={"log_likelihood": _standard_error(each)},
        coverage=tuple(
            Coverage(level, ((low <= y) & (y <= high)).double().mean().item(), (high - low).double().mean().item())
            for level, (low, high) in ends.items()
        ),
        count=len(y),
    )


def fit_tau(prediction: ValuePrediction, y: Tensor) -> float:
    """The precision of the noise under which these true values are likeliest; use inputs that were not trained on.

    Args:
        prediction: with its draws: `predict(..., keep_samples=True)`.
        y: the true values.

    Shape:
        y: (N, ...), that of `prediction.mean`.

    Returns:
        One over a variance, at most what float32 can tell of values like `y`.

    Raises:
        ImportError: scipy is not installed.
        ValueError: there are no draws, or `y` has another shape.
    """
    try:
        from scipy.optimize import minimize_scalar  # pyright: ignore[reportUnknownVariableType] (untyped)
    except ImportError as error:
        raise ImportError("fit_tau needs scipy: pip install 'dropkit[mc]'") from error
    distances, y = _distances(prediction, y), _values(prediction, y)
    size = y[0].numel()

    def loss(log_tau: float) -> float:
        return -_log_likelihoods(distances, prediction.samples, size, math.exp(log_tau)).mean().item()

    # The likeliest variance is a weighted mean of the squared distances, so between that of the nearest draws and that
    # of the farthest.
    told = torch.finfo(torch.float32)
    least = max(told.eps**2 * y.square().mean().item(), told.tiny)
    farthest, nearest = distances.where(distances.isfinite(), 0.0).amax(0), distances.amin(0)
    low, high = (-math.log(max(one.mean().item() / size, least)) for one in (farthest, nearest))
    grid = [low + (high - low) * place / _GRID for place in range(_GRID + 1)]
    best = min(range(_GRID + 1), key=lambda place: loss(grid[place]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, _GRID)]
    found = cast("Any", minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}))
    return math.exp(min((float(found.x), grid[best]), key=loss))


def interval(prediction: ValuePrediction, level: float = 0.95, tau: float | None = None) -> tuple[Tensor, Tensor]:
    """The ends of the central interval of a normal distribution with this mean and variance, each (N, ...).

    Args:
        level: the probability of the interval, in (0, 1).
        tau: the precision of the noise, whose variance is added. If None, the interval is that of the model's output,
            and not of what is observed.

    Raises:
        ValueError: `level` or `tau` is out of range, or an input has but one sample.
    """
    _check("level", 0 < level < 1, "in (0, 1)", level)
    _check("tau", tau is None or 0 < tau < math.inf, "larger than 0 and finite", tau)
    least = int(prediction.samples.min())
    _check("samples", least >= 2, "at least 2 of each input, to have a variance", least)
    noise = 0.0 if tau is None else 1 / tau
    reach = NormalDist().inv_cdf((1 + level) / 2) * (prediction.variance.double() + noise).sqrt()
    mean = prediction.mean.double()
    return (mean - reach).float(), (mean + reach).float()


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
        raise ImportError("ood needs torchmetrics: pip install 'dropkit[mc]'") from error
    measures = _uncertainty(inside, by), _uncertainty(outside, by)
    # Ranks, since torchmetrics takes numbers outside of [0, 1] for logits, and large logits are all 1 in float32.
    rank = _groups(torch.cat(measures))[0].double()
    rank = rank / rank.amax().clamp(min=1)
    elsewhere = torch.cat([torch.full((len(one),), place) for place, one in enumerate(measures)])
    specificity, _ = metrics.binary_specificity_at_sensitivity(rank, elsewhere, min_sensitivity=0.95)
    return Ood(
        auroc=metrics.binary_auroc(rank, elsewhere).item(),
        aupr=metrics.binary_average_precision(rank, elsewhere).item(),
        fpr95=1 - specificity.item(),
    )


def _uncertainty(prediction: ClassPrediction, by: Measure) -> Tensor:
    """The measure of all labels, (M,), so that more is less sure."""
    if not isinstance(prediction, ClassPrediction):
        raise TypeError(f"prediction must be a ClassPrediction, got {type(prediction).__name__}")
    _check("by", by in _MEASURES, ", ".join(f'"{one}"' for one in _MEASURES[:-1]) + f' or "{_MEASURES[-1]}"', by)
    measure: Tensor = getattr(prediction, by)
    return (-measure if by == "confidence" else measure).flatten()


def _labels(prediction: ClassPrediction, y: Tensor) -> Tensor:
    y = torch.as_tensor(y).cpu()
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"y must hold classes as integers, got {y.dtype}")
    shape, classes = tuple(prediction.mean.shape[:-1]), prediction.mean.shape[-1]
    _check("y", tuple(y.shape) == shape, f"of shape {shape}", tuple(y.shape))
    least, most = int(y.min()), int(y.max())
    _check("y", least >= 0 and most < classes, f"in [0, {classes})", least if least < 0 else most)
    return y.long()


def _values(prediction: ValuePrediction, y: Tensor) -> Tensor:
    y = torch.as_tensor(y).cpu().double()
    shape = tuple(prediction.mean.shape)
    _check("y", tuple(y.shape) == shape, f"of shape {shape}", tuple(y.shape))
    return y


def _standard_error(values: Tensor) -> float:
    """Of the mean over inputs: the labels of one input are not independent of one another."""
    inputs = values.flatten(1).mean(1) if values.dim() > 1 else values
    return (inputs.std() / math.sqrt(len(inputs))).item() if len(inputs) > 1 else math.nan


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
    group, count = _groups(by)
    return (group.bincount(weights=values) / count).repeat_interleave(count)


def _groups(values: Tensor) -> tuple[Tensor, Tensor]:
    """The place of each value among the different ones, in ascending order, and how many there are of each."""
    _, group, count = cast("tuple[Tensor, Tensor, Tensor]", values.unique(return_inverse=True, return_counts=True))
    return group, count


def _distances(prediction: ValuePrediction, y: Tensor) -> Tensor:
    """The squared distance of each draw from the truth, (T, N), float64; infinite where an input took fewer samples."""
    if prediction.draws is None:
        raise ValueError("prediction must hold its draws, got None: pass keep_samples=True to predict")
    y = _values(prediction, y)
    each = torch.stack([(draw.double() - y).square().reshape(len(y), -1).sum(1) for draw in prediction.draws])
    taken = torch.arange(len(each)).unsqueeze(1) < prediction.samples
    return each.where(taken, torch.inf)


def _log_likelihoods(distances: Tensor, samples: Tensor, size: int, tau: float) -> Tensor:
    """Of each input, (N,), in nats.

    Args:
        size: values of an input, D.
    """
    near = (-tau / 2 * distances).logsumexp(0)
    return near - samples.double().log() + size / 2 * (math.log(tau) - math.log(2 * math.pi))


def _line(name: str, value: float, error: float | None = None) -> str:
    number = f"{value:>11}" if isinstance(value, int) else f"{value:>11.4f}"
    return f"{name:<32} {number}" + ("" if error is None else f" +- {error:.4f}")


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return cast("list[float]", value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in cast("tuple[Any, ...]", value)]
    if hasattr(value, "__dataclass_fields__"):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return value


def _check(argument: str, holds: bool, wanted: str, came: object) -> None:
    if not holds:
        raise ValueError(f"{argument} must be {wanted}, got {came}")
