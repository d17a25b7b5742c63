"""Metrics of predicted values, given the true ones: error, likelihood, coverage of intervals.

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
from dropkit.extras import needed_for
from dropkit.mc.measures import ValueMeasures, least_samples
from dropkit.mc.metrics.common import line, plain, standard_error
from dropkit.mc.metrics.comparison import Comparison, difference

_LEVELS = (0.5, 0.8, 0.9, 0.95)
# Points at which the likelihood is evaluated first: it is smooth over a factor of two in tau, and may have several
# maxima.
_GRID = 100


@dataclass(frozen=True, slots=True)
class IntervalCoverage:
    """How often intervals that should hold the true value with probability `level` do, and their mean width."""

    level: float
    fraction: float
    width: float


@dataclass(frozen=True, slots=True, eq=False)
class RegressionReport:
    """How good predicted values are.

    Attributes:
        rmse: the root of the mean squared error of the mean.
        log_likelihood: log of the predicted density at the true value, in nats per input.
        tau: the precision of the observation noise (1 / variance) that this was computed with; not a number where the
            model predicts the noise.
        standard_error: of `log_likelihood`, over inputs; not a number for one input.
        coverage: of the intervals of several levels; empty where an input has a single sample, and so no variance.
        count: how many inputs there are.
        comparison: with the plain pass, of `rmse` and `log_likelihood`; None if there was none. The plain pass gets the
            noise that fits these very values best, 1 / (mean squared error).
    """

    rmse: float
    log_likelihood: float
    tau: float
    standard_error: Mapping[str, float]
    coverage: tuple[IntervalCoverage, ...]
    count: int
    comparison: Comparison | None = None

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Return the numbers as aligned text."""
        return "\n".join(
            [
                line("inputs", self.count),
                line("rmse", self.rmse),
                line("log_likelihood", self.log_likelihood, self.standard_error["log_likelihood"]),
                line("tau", self.tau),
                "",
                *([] if self.comparison is None else [self.comparison.table(), ""]),
                *([f"{'interval':<15} {'holds':>9} {'mean width':>11}"] if self.coverage else []),
                *(f"{item.level:<15.0%} {item.fraction:>9.2%} {item.width:>11.4g}" for item in self.coverage),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; None for what is not a finite number."""
        return cast("dict[str, Any]", plain(self))


def regression_report(prediction: ValueMeasures, y: Tensor, tau: float | None = None) -> RegressionReport:
    r"""Compare predicted values with the true ones.

    With the samples :math:`y_t` of an input and its D true values y, the log-likelihood is

    .. math:: \mathrm{logsumexp}_t (-\tau \|y - y_t\|^2 / 2) - \log T - D/2 \log 2\pi + D/2 \log \tau

    and the intervals are those of a normal distribution with the variance of the samples and that of the noise.

    Args:
        prediction: with its samples: `predict(..., keep_samples=True)`.
        y: the true values.
        tau: the precision of the observation noise, 1 / variance, larger than 0; see `fit_tau`. If None, the noise is
            that which the model predicts, and the likelihood that of a normal distribution with the total variance,
            for which no samples are needed.

    Shape:
        y: (N, ...), that of `prediction.mean`; padding does not count.

    Raises:
        ValueError: there are no samples, `y` has another shape, or `tau` is out of range or None without noise.
    """
    models_noise = "total_variance" in prediction.measures
    if tau is None:
        check("tau", models_noise, "given, as the model predicts no noise", None)
    else:
        check("tau", 0 < tau < math.inf, "larger than 0 and finite", tau)
    counted = counted_values(prediction)
    y = true_values(prediction, y)
    if tau is None:
        variance = prediction.total_variance.double()
        densities = -((prediction.mean.double() - y).square() / variance + (2 * math.pi * variance).log()) / 2
        of_inputs = densities.where(counted, 0.0).reshape(len(y), -1).sum(1)
    else:
        of_inputs = _log_likelihoods(_distances(prediction, y), prediction.sample_counts, _sizes(prediction), tau)
    levels = _LEVELS if least_samples(prediction) >= 2 else ()
    ends = {level: interval(prediction, level, tau) for level in levels}
    return RegressionReport(
        rmse=_rmse((prediction.mean.double() - y).square(), counted),
        log_likelihood=of_inputs.mean().item(),
        tau=math.nan if tau is None else float(tau),
        standard_error={"log_likelihood": standard_error(of_inputs)},
        coverage=tuple(
            IntervalCoverage(
                level,
                ((low <= y) & (y <= high))[counted].double().mean().item(),
                (high - low)[counted].double().mean().item(),
            )
            for level, (low, high) in ends.items()
        ),
        count=len(y),
        comparison=None if prediction.plain is None else _comparison(prediction, prediction.plain, of_inputs, y),
    )


def _comparison(prediction: ValueMeasures, plain: Tensor, log_likelihoods: Tensor, y: Tensor) -> Comparison:
    """Compare with the plain pass.

    Args:
        log_likelihoods: of the inputs, (N,).
    """
    counted = counted_values(prediction)
    squares, others = (((mean.double() - y).square()).where(counted, 0.0) for mean in (prediction.mean, plain))
    rmse, other_rmse = _rmse(squares, counted), _rmse(others, counted)
    tiny = torch.finfo(torch.float32).tiny
    tau = 1 / max(other_rmse**2, tiny)
    distances = others.reshape(1, len(y), -1).sum(2)
    of_plain = _log_likelihoods(distances, torch.ones(len(y)), _sizes(prediction), tau)
    # The derivative of a root.
    roots = [values / (2 * max(root, tiny)) for values, root in ((squares, rmse), (others, other_rmse))]
    return Comparison(
        {
            "rmse": difference(rmse, other_rmse, roots[0] - roots[1], counted=counted),
            "log_likelihood": difference(
                log_likelihoods.mean().item(), of_plain.mean().item(), log_likelihoods - of_plain, lower_is_better=False
            ),
        }
    )


def fit_tau(prediction: ValueMeasures, y: Tensor) -> float:
    """Return the precision of the noise with the largest likelihood; use inputs that were not trained on.

    Args:
        prediction: with its samples: `predict(..., keep_samples=True)`.
        y: the true values.

    Shape:
        y: (N, ...), that of `prediction.mean`.

    Returns:
        1 / variance; at most what float32 can resolve of values like `y`.

    Raises:
        ImportError: scipy is not installed.
        ValueError: there are no samples, or `y` has another shape.
    """
    with needed_for("fit_tau"):
        from scipy.optimize import minimize_scalar  # pyright: ignore[reportUnknownVariableType] (untyped)
    distances, y = _distances(prediction, y), true_values(prediction, y)
    sizes = _sizes(prediction)
    size = sizes.double().mean().item()

    def loss(log_tau: float) -> float:
        return -_log_likelihoods(distances, prediction.sample_counts, sizes, math.exp(log_tau)).mean().item()

    # The likeliest variance is a weighted mean of the squared distances, so between those of the nearest samples and
    # those of the farthest.
    float32 = torch.finfo(torch.float32)
    least = max(float32.eps**2 * y[counted_values(prediction)].square().mean().item(), float32.tiny)
    farthest, nearest = distances.where(distances.isfinite(), 0.0).amax(0), distances.amin(0)
    low, high = (-math.log(max(squared.mean().item() / size, least)) for squared in (farthest, nearest))
    grid = [low + (high - low) * step / _GRID for step in range(_GRID + 1)]
    best = min(range(_GRID + 1), key=lambda step: loss(grid[step]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, _GRID)]
    minimum = cast("Any", minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}))
    return math.exp(min((float(minimum.x), grid[best]), key=loss))


def interval(prediction: ValueMeasures, level: float = 0.95, tau: float | None = None) -> tuple[Tensor, Tensor]:
    """Return the ends of the central interval of a normal distribution with this mean and variance, each (N, ...).

    Args:
        level: the probability of the interval, in (0, 1).
        tau: the precision of the observation noise: 1 / tau is added to the variance. If None, the aleatoric variance
            that the model predicts; without one, the interval is that of its output, and not of what is observed.

    Raises:
        ValueError: `level` or `tau` is out of range, or an input has only one sample.
    """
    check("level", 0 < level < 1, "in (0, 1)", level)
    check("tau", tau is None or 0 < tau < math.inf, "larger than 0 and finite", tau)
    least = least_samples(prediction)
    check("samples", least >= 2, "at least 2 of each input, to have a variance", least)
    noise: float | Tensor = 0.0 if tau is None else 1 / tau
    if tau is None and "aleatoric_variance" in prediction.measures:
        noise = prediction.aleatoric_variance.double()
    reach = NormalDist().inv_cdf((1 + level) / 2) * (prediction.variance.double() + noise).sqrt()
    mean = prediction.mean.double()
    return (mean - reach).float(), (mean + reach).float()


def true_values(prediction: ValueMeasures, y: Tensor) -> Tensor:
    """Return true values in float64, or raise an error if they do not have the shape of the prediction."""
    y = torch.as_tensor(y).cpu().double()
    shape = tuple(prediction.mean.shape)
    check("y", tuple(y.shape) == shape, f"of shape {shape}", tuple(y.shape))
    return y


def counted_values(prediction: ValueMeasures) -> Tensor:
    """Which values are not padding, (N, ...)."""
    return torch.ones_like(prediction.mean, dtype=torch.bool) if prediction.valid is None else prediction.valid


def _rmse(squares: Tensor, counted: Tensor) -> float:
    """The root of the mean of the squared errors that count."""
    return squares[counted].mean().sqrt().item()


def _distances(prediction: ValueMeasures, y: Tensor) -> Tensor:
    """The squared distance of each sample from `y`, (T, N), float64; infinite where an input took fewer samples."""
    if prediction.samples is None:
        raise ValueError("prediction must hold its samples, got None: pass keep_samples=True to predict")
    y = true_values(prediction, y)
    counted = counted_values(prediction)
    distances = torch.stack(
        [(y_t.double() - y).square().where(counted, 0.0).reshape(len(y), -1).sum(1) for y_t in prediction.samples]
    )
    is_taken = torch.arange(len(distances)).unsqueeze(1) < prediction.sample_counts
    return distances.where(is_taken, torch.inf)


def _sizes(prediction: ValueMeasures) -> Tensor:
    """How many values each input has, (N,)."""
    return counted_values(prediction).reshape(len(prediction), -1).sum(1)


def _log_likelihoods(distances: Tensor, sample_counts: Tensor, size: int | Tensor, tau: float) -> Tensor:
    """The log-likelihood of each input, (N,), in nats.

    Args:
        size: how many values an input has, D; of all, or of each, (N,).
    """
    density = (-tau / 2 * distances).logsumexp(0)
    return density - sample_counts.double().log() + size / 2 * (math.log(tau) - math.log(2 * math.pi))
