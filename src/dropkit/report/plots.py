"""Plots as SVG elements for a page, in its text colour, so that they fit light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dropkit.report.panel import INK, Panel

_BAR = "#1f6feb"
# More points than this cannot be distinguished at this size.
_MAX_POINTS = 400


def reliability(edges: Sequence[tuple[float, float]], heights: Sequence[float], counts: Sequence[int]) -> str:
    """Plot accuracy over bins of confidence as bars, with the diagonal of perfect calibration.

    Args:
        edges: limits of each bin, in [0, 1].
        heights: accuracies, in [0, 1]; NaN for a bin without labels, which has no bar.
        counts: labels in each bin; bars of few labels are pale.
    """

    def draw(axes: Any) -> None:
        max_count = max(counts, default=0)
        for (low, high), height, count in zip(edges, heights, counts, strict=True):
            if count:
                axes.bar(
                    low, height, high - low, align="edge", color=_BAR, alpha=0.25 + 0.75 * (count / max_count) ** 0.5
                )
        axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)

    return Panel(draw, "confidence", "accuracy").svg()


def curve(x: Sequence[float], y: Sequence[float], x_label: str, y_label: str, diagonal: bool = False) -> str:
    """Plot a line over [0, 1], optionally with the diagonal. Points that are not finite are omitted."""
    points = [point for point in zip(x, y, strict=True) if all(map(math.isfinite, point))]
    step = max(1, len(points) // _MAX_POINTS)
    # Counted from the last point, which must be shown.
    shown = points[::-step][::-1]

    def draw(axes: Any) -> None:
        axes.plot([x for x, _ in shown], [y for _, y in shown], color=_BAR, linewidth=2)
        if diagonal:
            axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)

    return Panel(draw, x_label, y_label).svg()


def histogram(values: Sequence[float], x_label: str, bins: int = 40) -> str:
    """Plot how many inputs have which value, from 0 on. Values that are not finite are omitted."""
    return Panel(lambda axes: draw_histogram(axes, values, bins), x_label, "inputs").svg()


def draw_histogram(axes: Any, values: Sequence[float], bins: int = 40) -> None:
    """Draw this histogram in matplotlib Axes."""
    shown = [value for value in values if math.isfinite(value)]
    if shown:
        axes.hist(shown, bins=bins, range=(0, max(*shown, 0) or 1), color=_BAR)
    axes.set_xlim(left=0)
