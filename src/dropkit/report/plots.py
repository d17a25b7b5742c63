"""Plots as SVG to stand inside a page, in the ink of its reader: light or dark."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

# What matplotlib draws in this colour takes that of the text around it.
_INK = "#123456"
_BAR = "#1f6feb"
# Inches; a page scales them to its width.
_SIZE = (4.6, 3.4)


def reliability(edges: Sequence[tuple[float, float]], heights: Sequence[float], counts: Sequence[int]) -> str:
    """Bars of accuracy over bins of confidence, and the line on which they should end.

    Args:
        edges: of each bin, in [0, 1].
        heights: accuracies, in [0, 1].
        counts: of each bin; those of few labels are pale.
    """
    figure, axes = _axes("confidence", "accuracy")
    most = max(counts, default=1)
    for (low, high), height, count in zip(edges, heights, counts, strict=True):
        axes.bar(low, height, high - low, align="edge", color=_BAR, alpha=0.25 + 0.75 * (count / most) ** 0.5)
    axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return _svg(figure)


def curve(x: Sequence[float], y: Sequence[float], x_label: str, y_label: str, diagonal: bool = False) -> str:
    """One line over [0, 1]; with the diagonal that it should follow."""
    figure, axes = _axes(x_label, y_label)
    # As many points as can be told apart.
    step = max(1, len(x) // 400)
    axes.plot(list(x)[::step], list(y)[::step], color=_BAR, linewidth=2)
    if diagonal:
        axes.plot([0, 1], [0, 1], "--", color=_INK, linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    return _svg(figure)


def histogram(values: Sequence[float], bins: int = 40) -> str:
    """How many values are how large."""
    figure, axes = _axes("", "inputs")
    axes.hist([value for value in values if value == value], bins=bins, color=_BAR)
    axes.set_xlim(left=0)
    return _svg(figure)


def _axes(x_label: str, y_label: str) -> tuple[Any, Any]:
    # Not pyplot: a figure of its own touches no state that a caller may have, and needs no screen.
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'dropkit[mc]'") from error
    figure: Any = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, color=_INK)
    axes.set_ylabel(y_label, color=_INK)
    axes.tick_params(colors=_INK)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(_INK)
    return figure, axes


def _svg(figure: Any) -> str:
    """The element alone, its text as text."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "dropkit"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")
