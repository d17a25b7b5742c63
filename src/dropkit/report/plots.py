"""Plots as SVG to stand inside a page, in the ink of its reader: light or dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

# What matplotlib draws in this colour takes that of the text around it.
_INK = "#123456"
_BAR = "#1f6feb"
# Inches; a page scales them to its width.
_SIZE = (4.6, 3.4)
# As many points as can be told apart.
_POINTS = 400
# Text stays text, in the reader's font; equal plots are equal files.
_STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "dropkit"}
# No date, nor what drew it where: the page says that.
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Type", "Format"))


def reliability(edges: Sequence[tuple[float, float]], heights: Sequence[float], counts: Sequence[int]) -> str:
    """Bars of accuracy over bins of confidence, and the line on which they should end.

    Args:
        edges: of each bin, in [0, 1].
        heights: accuracies, in [0, 1]; not a number for a bin without labels, which has no bar.
        counts: of each bin; those of few labels are pale.
    """

    def draw(axes: Any) -> None:
        most = max(counts, default=0)
        for (low, high), height, count in zip(edges, heights, counts, strict=True):
            if count:
                axes.bar(low, height, high - low, align="edge", color=_BAR, alpha=0.25 + 0.75 * (count / most) ** 0.5)
        axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)

    return _svg("confidence", "accuracy", draw)


def curve(x: Sequence[float], y: Sequence[float], x_label: str, y_label: str, diagonal: bool = False) -> str:
    """One line over [0, 1]; with the diagonal that it should follow. Points that are not finite are left out."""
    points = [one for one in zip(x, y, strict=True) if all(map(math.isfinite, one))]
    step = max(1, len(points) // _POINTS)
    # From the end, where the line must arrive.
    shown = points[::-step][::-1]

    def draw(axes: Any) -> None:
        axes.plot([one for one, _ in shown], [one for _, one in shown], color=_BAR, linewidth=2)
        if diagonal:
            axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)

    return _svg(x_label, y_label, draw)


def histogram(values: Sequence[float], x_label: str, bins: int = 40) -> str:
    """How many inputs have how large a value, from 0 on. Values that are not finite are left out."""
    shown = [value for value in values if math.isfinite(value)]

    def draw(axes: Any) -> None:
        if shown:
            axes.hist(shown, bins=bins, range=(0, max(*shown, 0) or 1), color=_BAR)
        axes.set_xlim(left=0)

    return _svg(x_label, "inputs", draw)


def _svg(x_label: str, y_label: str, draw: Callable[[Any], None]) -> str:
    """The element alone."""
    # Not pyplot: a figure of its own touches no state that a caller may have, and needs no screen.
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "dropkit[mc]"') from error
    file = io.StringIO()
    # The caller's own style may be for paper of one colour.
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
    # Several stand in one page, where each name may be borne once; nothing refers to those of groups.
    text = re.sub(r'<g id="[\w.]+">', "<g>", text[text.index("<svg") :])
    return text.replace(_INK, "currentColor")
