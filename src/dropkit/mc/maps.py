"""Maps of what is predicted for each pixel, and how uncertain it is, for the first few inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dropkit.arguments import check
from dropkit.mc.measures import ClassMeasures, Prediction, ValueMeasures
from dropkit.mc.summary import Summary
from dropkit.mc.thumbnails import pictures, pixels
from dropkit.report import panel

# Inputs on a page.
_ON_PAGE = 3
# Anything smaller is no image.
_LEAST = 6
# In inches.
_MAP = 2.3
# Pixels along the longer side of an input.
_SIZE = 256
# At padding.
_NOTHING = "#b0b0b0"
_UNCERTAIN = "viridis"


@dataclass(frozen=True, slots=True)
class _Map:
    """One map.

    Attributes:
        title: what it shows.
        values: (H, W), or an image (H, W, 3 or 4).
        label: of the colour bar; an image has none.
        limits: of the colours; those of the values if None.
        classes: their names, if the values are classes.
    """

    title: str
    values: Tensor
    label: str = ""
    limits: tuple[float, float] | None = None
    classes: tuple[str, ...] = ()


def has_maps(prediction: Prediction) -> bool:
    """Whether there is a class, or one value or several, for each pixel."""
    shape = prediction.label_shape
    is_image = len(shape) == 3 or (len(shape) == 4 and isinstance(prediction, ValueMeasures))
    return isinstance(prediction, (ClassMeasures, ValueMeasures)) and is_image and min(shape[-2:]) >= _LEAST


def plot_maps(summary: Summary) -> Any:
    """Draw a row of maps for each of the first `summary.top` inputs as a matplotlib Figure, dark on white.

    Raises:
        ValueError: there is no class or value for each pixel.
    """
    prediction = summary.prediction
    wanted = f"of a class or value for each pixel, of at least {_LEAST} x {_LEAST}"
    check("prediction", has_maps(prediction), wanted, prediction.label_shape)
    rows = [_maps(summary, number) for number in range(min(summary.top, len(prediction)))]
    with panel.style():
        figure = _figure(rows, [f"input {number}" for number in range(len(rows))])
        panel.print_on_white(figure)
    return figure


def figures(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Yield a figure of a page for each of the first inputs, each as (title, caption, SVG)."""
    if not has_maps(summary.prediction):
        return
    for number in range(min(_ON_PAGE, len(summary.prediction))):
        maps = _maps(summary, number)
        names = [item.title for item in maps]
        with panel.style():
            figure = _figure([maps[:2], maps[2:]] if len(maps) > 2 else [maps], ["", ""])
            drawn = panel.svg(figure, f"Maps of input {number}: {', '.join(names)}")
        yield (
            f"Input {number}",
            f"{', '.join(names).capitalize()} of each pixel, with the same colours for all inputs.",
            drawn,
        )


def _maps(summary: Summary, number: int) -> list[_Map]:
    """The maps of one input, with colours that do not depend on the input."""
    prediction, maps = summary.prediction, list[_Map]()
    picture = {} if summary.inputs is None else pictures(summary.inputs, [number])
    if number in picture:
        maps.append(_Map("input", pixels(picture[number], _SIZE)))
    if isinstance(prediction, ClassMeasures):
        count = prediction.mean.shape[-1]
        classes = prediction.label[number].float().masked_fill(prediction.label[number] < 0, float("nan"))
        maps.append(
            _Map("predicted class", classes, "class", (-0.5, count - 0.5), tuple(map(summary.name, range(count))))
        )
        names = ("entropy", "mutual_information")
        measures = {name.replace("_", " "): prediction.measures.get(name) for name in names}
        units = dict.fromkeys(measures, "nats")
    else:
        maps.append(_of("mean", prediction.mean, number, "unit of the values"))
        variance = prediction.measures.get("variance")
        measures = {"standard deviation": None if variance is None else variance.sqrt()}
        noise = prediction.measures.get("aleatoric_variance")
        measures["standard deviation of the noise"] = None if noise is None else noise.sqrt()
        units = dict.fromkeys(measures, "unit of the values")
    return maps + [_of(name, value, number, units[name], 0.0) for name, value in measures.items() if value is not None]


def _of(title: str, measure: Tensor, number: int, unit: str, least: float | None = None) -> _Map:
    """The map of a measure, (N, H, W), or of the mean over its channels, (N, C, H, W)."""
    if measure.dim() == 4:
        title += ", channels averaged" if measure.shape[1] > 1 else ""
        measure = measure.mean(1)
    shown = measure[: max(_ON_PAGE, number + 1)]
    known = shown[shown.isfinite()]
    if not known.numel():
        return _Map(title, measure[number], unit)
    return _Map(title, measure[number], unit, (float(known.min()) if least is None else least, float(known.max())))


def _figure(rows: list[list[_Map]], names: list[str]) -> Any:
    """The maps in rows, each with its colour bar."""
    # Not pyplot, which has global state and may need a display.
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    figure: Any = Figure(figsize=(_MAP * columns, _MAP * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for maps, axes_of_row, name in zip(rows, grid, names, strict=False):
        for axes in axes_of_row[len(maps) :]:
            axes.set_axis_off()
        for item, axes in zip(maps, axes_of_row, strict=False):
            _draw(figure, axes, item)
        axes_of_row[0].set_ylabel(name, color=panel.INK)
    return figure


def _draw(figure: Any, axes: Any, item: _Map) -> None:
    axes.set_title(item.title, color=panel.INK, fontsize=9)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if not item.label:
        axes.imshow(item.values.numpy())
        return
    from matplotlib import colormaps

    count = len(item.classes)
    colors = colormaps["tab20" if count > 10 else "tab10"] if count else colormaps[_UNCERTAIN]
    if count:
        # Repeated beyond twenty classes.
        from matplotlib.colors import ListedColormap

        colors = ListedColormap([colors(number % colors.N) for number in range(count)])
    low, high = item.limits or (None, None)
    image = axes.imshow(
        item.values.numpy(), colors.with_extremes(bad=_NOTHING), vmin=low, vmax=high, interpolation="nearest"
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label(item.label, color=panel.INK, fontsize=8)
    bar.ax.tick_params(colors=panel.INK, labelsize=7)
    bar.outline.set_visible(False)
    if count:
        shown = range(0, count, -(-count // 10))
        bar.set_ticks(list(shown), labels=[item.classes[number] for number in shown])
