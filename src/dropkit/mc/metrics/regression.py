"""The quality of predicted values, given the true ones.

Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016, arXiv:1506.02142, eq. 8 (the log-likelihood).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, cast

import torch
from torch import Tensor

from dropkit.arguments import check
from dropkit.mc.metrics.common import line, plain, standard_error
from dropkit.mc.prediction import ValuePrediction

_LEVELS = (0.5, 0.8, 0.9, 0.95)
# Where the likelihood is first looked at: it is smooth over a factor of two in tau, and there may be several hills.
_GRID = 100


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
                line("inputs", self.count),
                line("rmse", self.rmse),
                line("log_likelihood", self.log_likelihood, self.standard_error["log_likelihood"]),
                line("tau", self.tau),
                "",
                f"{'interval':<15} {'holds':>9} {'mean width':>11}",
                *(f"{one.level:<15.0%} {one.fraction:>9.2%} {one.width:>11.4g}" for one in self.coverage),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; None for what is not a finite number."""
        return cast("dict[str, Any]", plain(self))


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
    check("tau", 0 < tau < math.inf, "larger than 0 and finite", tau)
    distances, y = _distances(prediction, y), _values(prediction, y)
    each = _log_likelihoods(distances, prediction.samples, y[0].numel(), tau)
    ends = {level: interval(prediction, level, tau) for level in _LEVELS}
    return ValueQuality(
        rmse=(prediction.mean.double() - y).square().mean().sqrt().item(),
        log_likelihood=each.mean().item(),
        tau=float(tau),
        standard_error={"log_likelihood": standard_error(each)},
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
        raise ImportError('fit_tau needs scipy: pip install "dropkit[mc]"') from error
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
    check("level", 0 < level < 1, "in (0, 1)", level)
    check("tau", tau is None or 0 < tau < math.inf, "larger than 0 and finite", tau)
    least = int(prediction.samples.min())
    check("samples", least >= 2, "at least 2 of each input, to have a variance", least)
    noise = 0.0 if tau is None else 1 / tau
    reach = NormalDist().inv_cdf((1 + level) / 2) * (prediction.variance.double() + noise).sqrt()
    mean = prediction.mean.double()
    return (mean - reach).float(), (mean + reach).float()


def _values(prediction: ValuePrediction, y: Tensor) -> Tensor:
    y = torch.as_tensor(y).cpu().double()
    shape = tuple(prediction.mean.shape)
    check("y", tuple(y.shape) == shape, f"of shape {shape}", tuple(y.shape))
    return y


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
