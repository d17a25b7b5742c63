"""Plots as SVG elements for a page, in its text colour, so that they fit light and dark pages."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

# matplotlib draws in this colour, which is then replaced by the page's text colour.
_INK = "#123456"
_BAR = "#1f6feb"
# In inches; a page scales a plot to its width.
_SIZE = (4.6, 3.4)
# More points than this cannot be distinguished at this size.
_MAX_POINTS = 400
# Text remains text, in the reader's font; a fixed salt makes equal plots equal files.
_STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "dropkit"}
# No date and no name of the program: the page has them.
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Type", "Format"))


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
        axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)

    return _svg("confidence", "accuracy", draw)


def curve(x: Sequence[float], y: Sequence[float], x_label: str, y_label: str, diagonal: bool = False) -> str:
    """Plot a line over [0, 1], optionally with the diagonal. Points that are not finite are omitted."""
    points = [point for point in zip(x, y, strict=True) if all(map(math.isfinite, point))]
    step = max(1, len(points) // _MAX_POINTS)
    # Counted from the last point, which must be shown.
    shown = points[::-step][::-1]

    def draw(axes: Any) -> None:
        axes.plot([x for x, _ in shown], [y for _, y in shown], color=_BAR, linewidth=2)
        if diagonal:
            axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)

    return _svg(x_label, y_label, draw)


def histogram(values: Sequence[float], x_label: str, bins: int = 40) -> str:
    """Plot how many inputs have which value, from 0 on. Values that are not finite are omitted."""
    shown = [value for value in values if math.isfinite(value)]

    def draw(axes: Any) -> None:
        if shown:
            axes.hist(shown, bins=bins, range=(0, max(*shown, 0) or 1), color=_BAR)
        axes.set_xlim(left=0)

    return _svg(x_label, "inputs", draw)


def _svg(x_label: str, y_label: str, draw: Callable[[Any], None]) -> str:
    """Return the plot as an `<svg>` element."""
    # Not pyplot, which has global state and may need a display.
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "dropkit[mc]"') from error
    file = io.StringIO()
    # The caller's own style may not fit dark pages.
    with style.context(["default", _STYLE]):
        figure: Any = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(x_label, color=_INK)
        axes.set_ylabel(y_label, color=_INK)
        axes.tick_params(colors=_INK)
        for name, spine in axes.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color(_INK)
        draw(axes)
        figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA)
    text = file.getvalue()
    # Ids must be unique in a page with several plots; nothing refers to those of groups.
    text = re.sub(r'<g id="[\w.]+">', "<g>", text[text.index("<svg") :])
    return text.replace(_INK, "currentColor")
