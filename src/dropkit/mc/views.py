"""How predictions show themselves: as a table, a page, a plot and plain values."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dropkit.extras import needed_for
from dropkit.mc import columns
from dropkit.mc.measures import Prediction, measures_of
from dropkit.mc.metrics.common import plain
from dropkit.mc.summary import Summary, as_list, report, with_notes
from dropkit.mc.table import table

# Rows of the least certain inputs in a terminal and in a notebook.
_TOP = 5


class Views(Prediction):
    """A prediction that can be printed, plotted and written."""

    __slots__ = ()

    def __str__(self) -> str:
        return table(Summary(self, None, None, _TOP), color=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples as values that JSON can hold; None for what is not a finite number.

        Returns:
            The measures and "plain" by name as nested lists, in the order of the inputs; "standard_error" likewise;
            "num_samples"; "sample_counts" of each input; "notes".
        """
        return {
            **{name: plain(self.measures[name]) for name in measures_of(type(self)) if name in self.measures},
            "plain": plain(self.plain),
            "standard_error": plain(self.standard_error),
            "num_samples": self.num_samples,
            "sample_counts": plain(self.sample_counts),
            "notes": plain(self.notes),
        }

    def to_html(
        self,
        y: Tensor | None = None,
        *,
        tau: float | None = None,
        top: int = 10,
        title: str = "a prediction",
        classes: Sequence[str] | None = None,
        inputs: Any = None,
    ) -> str:
        """Return a self-contained page with plots: that of `dropkit mc --html`.

        Args:
            y: the true classes or values; without them the page has no report.
            tau: for values, the precision of the noise; fitted to `y` if None.
            top: how many of the least certain inputs to show.
            title: of the page, "Uncertainty of ...".
            classes: the name of each class or label; their numbers if None.
            inputs: those of `predict`, of which the page shows images: a tensor or array, or a mapping or tuple that
                begins with one, (N, C, H, W), (N, H, W, C) or (N, H, H) with 1, 3 or 4 channels; or a data set.

        Raises:
            ImportError: jinja2 or matplotlib is not installed.
            ValueError: `y` has another shape or values that do not exist, or `classes` another number of names.
        """
        with needed_for("to_html"):
            from dropkit.mc.page import page

            shown = with_notes(self, is_fitted=False)
            return page(Summary(shown, y, report(self, y, tau), top, classes, inputs), title)

    def plot(self, ax: Any = None) -> Any:
        """Draw a histogram of the inputs' uncertainty, by the measure that tables order inputs by.

        Args:
            ax: the matplotlib Axes to draw in; the current ones if None.

        Returns:
            The Axes.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there is a single sample, which tells no uncertainty of values.
        """
        from dropkit.report import plots

        summary = Summary(self, None, None, _TOP)
        uncertainty, order = summary.uncertainty(), summary.order
        if uncertainty is None or order is None:
            raise ValueError(f"samples must be at least 2 of each input, got {self.num_samples}")
        if ax is None:
            with needed_for("plot"):
                from matplotlib import pyplot

            ax = pyplot.gca()
        plots.draw_histogram(ax, as_list(uncertainty))
        ax.set_xlabel(f"{order.label}, {order.unit}")
        ax.set_ylabel("inputs")
        return ax

    def plot_maps(self, inputs: Any = None, *, top: int = 3, classes: Sequence[str] | None = None) -> Any:
        """Draw what is predicted for each pixel, and how uncertain it is, for the first inputs.

        The maps are the input, the predicted class, entropy and mutual information; for values their mean and standard
        deviation, (N, H, W) or (N, C, H, W), over several channels their means. Padding is grey.

        Args:
            inputs: those of `predict`, as for `to_html`; without them the maps of the input are missing.
            top: how many inputs.
            classes: the name of each class; their numbers if None.

        Returns:
            A matplotlib Figure, which `savefig("maps.png")` writes.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there is no class or value for each pixel.
        """
        with needed_for("plot_maps"):
            from dropkit.mc.maps import plot_maps

            return plot_maps(Summary(self, None, None, top, classes, inputs))

    def _repr_html_(self) -> str:
        """A notebook's view: the least certain inputs."""
        summary = Summary(self, None, None, _TOP)
        shown = columns.least_certain(summary)
        rows = zip(*(column.cells for column in shown), strict=True)
        cells = [_row("th", [column.heading for column in shown])]
        cells += [_row("td", [cell.text for cell in row]) for row in rows]
        notes = [f"<p>note: {html.escape(note)}</p>" for note in self.notes]
        caption = f"{html.escape(repr(self))}, {summary.least_certain_title()}"
        return "".join(["<table><caption>", caption, "</caption>", *cells, "</table>", *notes])


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
