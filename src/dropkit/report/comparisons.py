"""Plots that compare settings: means with intervals, over a rate or in a list, and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dropkit.report.panel import COLORS, INK, Panel

# Beside colours, which distinguish four series only, and none in print.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# In inches: a line of a list, and axes with labels.
_LINE, _AXES = 0.23, 0.95
# Fraction of the range of x by which points of different series at one place are moved apart.
_SHIFT = 0.012
# Ends of intervals at more than so many times the range of the means would flatten what there is to see.
_MAX_STRETCH = 1.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the ends of its interval; NaN for ends that are unknown."""

    mean: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        """The ends, or the mean where they are unknown."""
        return (self.low, self.high) if math.isfinite(self.low) and math.isfinite(self.high) else (self.mean, self.mean)


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour.

    Attributes:
        name: for the legend.
        x: places.
        y: a value for each place; one whose mean is NaN failed.
        color: number of its colour and marker.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[Interval, ...]
    color: int = 0


@dataclass(frozen=True, slots=True)
class Curve:
    """A line: the values of each run, and their mean.

    Attributes:
        name: for the legend.
        x: places.
        runs: for each run, a value for each place.
        color: number of its colour; None for that of the text.
        is_dashed: whether the line is dashed.
    """

    name: str
    x: tuple[float, ...]
    runs: tuple[tuple[float, ...], ...]
    color: int | None = 0
    is_dashed: bool = False


def against(
    series: Sequence[Series], base: Interval, base_name: str, x_label: str, y_label: str, title: str, alt: str
) -> Panel:
    """Plot series with whiskers over a rate, and what they are compared with as a horizontal band."""

    def draw(axes: Any) -> None:
        low, high = base.ends
        axes.axhspan(low, high, color=INK, alpha=0.12, linewidth=0)
        axes.axhline(base.mean, color=INK, linewidth=1, linestyle="--", label=base_name)
        width = max((x for item in series for x in item.x), default=1.0)
        for number, one in enumerate(series):
            shift = width * _SHIFT * (number - (len(series) - 1) / 2)
            points = [(x + shift, y) for x, y in zip(one.x, one.y, strict=True)]
            _whiskers(axes, [point for point in points if math.isfinite(point[1].mean)], one)
            failed = [x for x, y in points if not math.isfinite(y.mean)]
            if failed:
                _crosses(axes, failed, _color(one.color))
        ticks = sorted({x for item in series for x in item.x})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.set_ylim(*_limits([base, *(y for item in series for y in item.y)]))

    return Panel(draw, x_label, y_label, title, alt, height=3.8)


def listed(labels: Sequence[str], values: Sequence[Interval], x_label: str, title: str, alt: str) -> Panel:
    """Plot changes with whiskers, one line each, beside a line at 0; those that are not known are omitted."""
    lines = [(label, value) for label, value in zip(labels, values, strict=True) if math.isfinite(value.mean)]

    def draw(axes: Any) -> None:
        axes.axvline(0, color=INK, linewidth=1, linestyle="--")
        for place, (_, value) in enumerate(lines):
            low, high = value.ends
            axes.plot([low, high], [place, place], color=COLORS[0], linewidth=1.5, solid_capstyle="butt")
            axes.plot([value.mean], [place], "o", color=COLORS[0], markersize=5)
        _rows(axes, [label for label, _ in lines])

    return Panel(draw, x_label, "", title, alt, _AXES + _LINE * len(lines))


def pairs(
    labels: Sequence[str],
    first: Sequence[float],
    second: Sequence[float],
    names: tuple[str, str],
    x_label: str,
    title: str,
    alt: str,
    zero: bool = False,
) -> Panel:
    """Plot two values for each label, connected by a line; the second may be NaN.

    Args:
        labels: one for each line.
        first, second: the values.
        names: of the two.
        x_label: what they are.
        title, alt: of the panel.
        zero: draw a line at 0.
    """
    lines = [line for line in zip(labels, first, second, strict=True) if math.isfinite(line[1])]

    def draw(axes: Any) -> None:
        if zero:
            axes.axvline(0, color=INK, linewidth=1, linestyle="--")
        for place, (_, left, right) in enumerate(lines):
            if math.isfinite(right):
                axes.plot([left, right], [place, place], color=INK, linewidth=1, alpha=0.5)
        places = range(len(lines))
        axes.plot([line[1] for line in lines], places, "o", color=COLORS[0], markersize=6, label=names[0])
        if any(math.isfinite(line[2]) for line in lines):
            axes.plot([line[2] for line in lines], places, "D", color=COLORS[1], markersize=5, label=names[1])
        _rows(axes, [line[0] for line in lines])

    return Panel(draw, x_label, "", title, alt, _AXES + 0.25 + _LINE * len(lines))


def curves(items: Sequence[Curve], x_label: str, y_label: str, title: str, alt: str) -> Panel:
    """Plot the mean of each curve as a line and its runs as pale lines."""

    def draw(axes: Any) -> None:
        for item in items:
            style: dict[str, Any] = {"color": INK if item.color is None else _color(item.color)}
            style["linestyle"] = "--" if item.is_dashed else "-"
            for run in item.runs:
                axes.plot(item.x, run, alpha=0.25, linewidth=0.8, **style)
            means = [sum(values) / len(values) for values in zip(*item.runs, strict=True)]
            axes.plot(item.x, means, linewidth=2, label=item.name, **style)
        axes.locator_params(axis="x", integer=True)
        values = [y for item in items for run in item.runs for y in run if math.isfinite(y) and y > 0]
        # The training loss falls by orders of magnitude, which hides the other curves on a linear axis.
        if values and max(values) > 30 * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        elif values:
            axes.set_ylim(bottom=0)

    return Panel(draw, x_label, y_label, title, alt, height=3.8)


def _whiskers(axes: Any, points: Sequence[tuple[float, Interval]], one: Series) -> None:
    color, marker = _color(one.color), _MARKERS[one.color % len(_MARKERS)]
    x, means = [x for x, _ in points], [value.mean for _, value in points]
    below = [value.mean - value.ends[0] for _, value in points]
    above = [value.ends[1] - value.mean for _, value in points]
    axes.plot(x, means, color=color, linewidth=1.5, alpha=0.6)
    axes.errorbar(
        x, means, (below, above), fmt=marker, color=color, markersize=5, capsize=2.5, elinewidth=1.2, label=one.name
    )


def _crosses(axes: Any, x: Sequence[float], color: str) -> None:
    """Mark what failed, at the upper edge."""
    top = {"transform": axes.get_xaxis_transform(), "clip_on": False}
    axes.plot(x, [1.0] * len(x), "x", color=color, markersize=8, markeredgewidth=2, **top)


def _limits(values: Sequence[Interval]) -> tuple[float, float]:
    """The range of y: all means, and the ends of intervals as far as they do not flatten the rest."""
    means = [value.mean for value in values if math.isfinite(value.mean)]
    ends = [end for value in values if math.isfinite(value.mean) for end in value.ends]
    if not means:
        return 0.0, 1.0
    low, high = min(means), max(means)
    reach = _MAX_STRETCH * (high - low) or max(abs(low - end) for end in ends) or 1.0
    low, high = max(min(ends), low - reach), min(max(ends), high + reach)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _rows(axes: Any, labels: Sequence[str]) -> None:
    """Name the lines of a list, the first at the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=INK, alpha=0.12)
    axes.spines["left"].set_visible(False)


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]
