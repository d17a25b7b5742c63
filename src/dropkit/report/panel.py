"""A plot that is drawn as an SVG element for a page, in its text colour, or together with others as a PNG file."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

from dropkit.extras import needed_for

# matplotlib draws in this colour, which a page replaces by its text colour.
INK = "#123456"
# Text of PNG files, on white.
_PRINTED = "#1b1f24"
# Distinct to colour-blind readers, with enough contrast on white and on dark pages. Source: Okabe, Ito, "Color
# Universal Design", 2008, without its light colours.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
# In inches; a page scales a plot to its width.
_WIDTH = 4.6
_DPI = 160
# Text remains text, in the reader's font; a fixed salt makes equal plots equal files.
_STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "dropkit"}
# No date and no name of the program: the page has them.
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Type", "Format"))


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot.

    Attributes:
        draw: draws into matplotlib's axes; text and lines in `INK` get the colour of the text around the plot.
        x_label, y_label: of the axes.
        title: above the plot in a PNG file; a page has headings of its own.
        alt: what the plot shows, for those who cannot see it.
        height: in inches, where the width is 4.6.
    """

    draw: Callable[[Any], None]
    x_label: str
    y_label: str = ""
    title: str = ""
    alt: str = ""
    height: float = 3.4

    def svg(self) -> str:
        """Return the plot as an `<svg>` element.

        Raises:
            ImportError: matplotlib is not installed.
        """
        with style():
            return svg(_figure(self, ""), self.alt)


def svg(figure: Any, alt: str) -> str:
    """Return a matplotlib Figure as an `<svg>` element.

    Args:
        alt: what it shows, for those who cannot see it.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=_NO_METADATA, dpi=_DPI)
    text = file.getvalue()
    # Ids must be unique in a page with several plots; nothing refers to those of groups.
    text = re.sub(r'<g id="[\w.]+">', "<g>", text[text.index("<svg") :])
    if alt:
        text = text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
    for number, color in enumerate(COLORS, start=1):
        text = text.replace(f": {color}", f": var(--series-{number}, {color})")
    return text.replace(INK, "currentColor")


def png(panels: Sequence[Panel], columns: int) -> bytes:
    """Return plots as one PNG file, dark on white.

    Args:
        panels: at least one.
        columns: how many are side by side.

    Raises:
        ImportError: matplotlib is not installed.
    """
    file = io.BytesIO()
    with style():
        import numpy as np
        from matplotlib.image import imsave  # pyright: ignore[reportUnknownVariableType] (partly untyped)

        pictures = [_pixels(panel) for panel in panels]
        columns = min(columns, len(pictures))
        lines = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
        # White where a panel is lower than those beside it, or missing.
        height, width = sum(max(map(len, line)) for line in lines), columns * pictures[0].shape[1]
        canvas = np.full((height, width, 4), 255, np.uint8)
        top = 0
        for line in lines:
            for column, picture in enumerate(line):
                left = column * picture.shape[1]
                canvas[top : top + len(picture), left : left + picture.shape[1]] = picture
            top += max(map(len, line))
        metadata: Any = {"Software": None}
        imsave(file, canvas, format="png", dpi=_DPI, metadata=metadata)
    return file.getvalue()


@contextmanager
def style() -> Generator[None]:
    """Use a style of our own: the caller's may not fit dark pages."""
    with needed_for("a plot"):
        from matplotlib import style as styles
    with styles.context(["default", _STYLE]):
        yield


def _pixels(panel: Panel) -> Any:
    """The plot with its title as an array, (height, width, 4), bytes."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure(panel, panel.title)
    figure.set_dpi(_DPI)
    print_on_white(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


def _figure(panel: Panel, title: str) -> Any:
    # Not pyplot, which has global state and may need a display.
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(_WIDTH, panel.height), layout="constrained")
    _draw(panel, figure, title)
    return figure


def _draw(panel: Panel, figure: Any, title: str) -> None:
    axes = figure.add_subplot()
    axes.set_xlabel(panel.x_label, color=INK)
    axes.set_ylabel(panel.y_label, color=INK)
    axes.tick_params(colors=INK, which="both")
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)
    panel.draw(axes)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        # Outside, where it hides nothing.
        options = {"frameon": False, "labelcolor": INK, "fontsize": 9, "handlelength": 1.8, "columnspacing": 1.2}
        columns = 3 if max(map(len, labels)) < 16 else 2
        legend = figure.legend(handles, labels, loc="outside upper center", ncols=columns, title=title, **options)
        legend.get_title().set(color=INK, fontweight="bold", fontsize=11)
    elif title:
        figure.suptitle(title, color=INK, fontweight="bold", fontsize=11)


def print_on_white(figure: Any) -> None:
    """Give what is drawn in ink the colour of text on white."""
    from matplotlib.colors import to_hex

    for item in figure.findobj():
        for name in ("color", "edgecolor", "facecolor"):
            try:
                if to_hex(getattr(item, f"get_{name}")()) == INK:
                    getattr(item, f"set_{name}")(_PRINTED)
            except (AttributeError, ValueError):
                continue
