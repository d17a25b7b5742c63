"""Plots that compare settings: drawn from any numbers, in colours that fit, with a text for those who cannot see."""

import math
import re
import struct
from functools import cache
from io import BytesIO
from xml.etree import ElementTree

import pytest

from dropkit.report.comparisons import Curve, Interval, Series, against, curves, listed, pairs
from dropkit.report.panel import COLORS, png

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("matplotlib.image")
SVG = "{http://www.w3.org/2000/svg}"
NAN = math.nan
MINUS = "\N{MINUS SIGN}"
UNKNOWN = Interval(NAN, NAN, NAN)
ONE, TWO = Interval(0.2, 0.1, 0.3), Interval(0.25, 0.2, 0.3)


def rates(*values, base=ONE):
    series = [Series(f"kind {n}", (0.1, 0.5)[: len(values)], values, n) for n in range(9)]
    return against(series, base, "no dropout", "p", "error", "net", 'error <of> "net"')


def losses(*runs, x=(1.0, 2.0, 3.0)):
    items = [Curve("none", x, runs, None), Curve("dropout", x, runs, 1, is_dashed=True)]
    return curves(items, "epoch", "loss", "net", "losses")


PANELS = {
    "against": lambda: rates(ONE, TWO),
    "against, failed": lambda: rates(ONE, UNKNOWN),
    "against, all failed": lambda: rates(UNKNOWN, UNKNOWN, base=UNKNOWN),
    "against, no intervals": lambda: rates(Interval(0.2, NAN, NAN), Interval(0.3, NAN, NAN), base=Interval(0, 0, 0)),
    "against, equal": lambda: rates(Interval(0, 0, 0), base=Interval(0, 0, 0)),
    "against, infinite interval": lambda: rates(Interval(0.2, -math.inf, math.inf), TWO),
    "against, nothing": lambda: against([], ONE, "no dropout", "p", "error", "net", "nothing"),
    "listed": lambda: listed(["a", "b", "c"], [ONE, UNKNOWN, Interval(0.1, NAN, NAN)], "change", "net", "changes"),
    "listed, nothing": lambda: listed([], [], "change", "net", "changes"),
    "pairs": lambda: pairs(["a", "b"], [0.1, NAN], [NAN, 0.2], ("plain", "MC"), "ECE", "net", "pairs", zero=True),
    "pairs, nothing": lambda: pairs([], [], [], ("plain", "MC"), "ECE", "net", "pairs"),
    "curves": lambda: losses((1.0, 0.5, 0.2), (1.1, 0.6, 0.3)),
    "curves, logarithmic": lambda: losses((1.0, 0.1, 0.0001)),
    "curves, zeros and NaN": lambda: losses((0.0, NAN, 0.0)),
    "curves, negative": lambda: losses((-1.0, -2.0, 3.0)),
    "markup": lambda: listed(["<b>&</b> $x$ {y}"], [ONE], "$change$", "<i>", '"<b>&'),
}


@cache
def drawn(name):
    return PANELS[name]().svg()


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_is_one_element_that_says_what_it_shows(name):
    """Valid XML with an alternative text; also where numbers are missing."""
    root = ElementTree.fromstring(drawn(name))

    assert root.tag == f"{SVG}svg"
    assert (root.attrib["role"], root.attrib["aria-label"]) == ("img", PANELS[name]().alt)


@pytest.mark.parametrize("name", PANELS)
def test_colours_follow_the_page(name):
    """Text and axes have that of its text, series have variables, for which it has light and dark colours."""
    svg = re.sub(r'"#\w+"|url\(#\w+\)', "", drawn(name))

    assert {*re.findall(r"(?<!, )#[0-9a-f]{6}", svg)} == set()
    assert {*re.findall(r"var\(--series-\d, (#\w+)\)", svg)} <= set(COLORS)


@pytest.mark.parametrize("name", ["against", "listed", "pairs", "curves"])
def test_equal_panels_are_equal_text(name):
    """There is neither a date nor a random id in them."""
    assert PANELS[name]().svg() == drawn(name)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_a_file_holds_all_panels(columns):
    """Each is 736 pixels wide; the file is as wide as the columns and as high as the lines."""
    panels = [PANELS[name]() for name in ("listed", "against", "pairs")]

    width, height = struct.unpack(">II", png(panels, columns)[16:24])

    heights = [round(160 * panel.height) for panel in panels]
    lines = [heights[start : start + columns] for start in range(0, 3, columns)]
    assert width == 736 * columns
    # Each height is rounded.
    assert abs(height - sum(map(max, lines))) <= len(lines)


def test_lines_of_a_file_do_not_overlap():
    """Each begins below the highest panel of the one before."""
    low, high, last = (PANELS[name]() for name in ("listed", "against", "pairs"))

    together, alone = (matplotlib.image.imread(BytesIO(png(panels, 2))) for panels in ([low, high, last], [last]))

    height, width, _ = alone.shape
    assert (together[-height:, :width] == alone).all()
    assert (together[-height:, width:] == 1).all()


def test_a_failed_point_is_a_cross_at_the_top():
    """It is not left out in silence."""
    crosses = {name: re.findall('<use [^>]*y="([\\d.]+)"[^>]*stroke-width: 2"', drawn(name)) for name in PANELS}

    assert not crosses["against"]
    assert len(crosses["against, failed"]) == 9
    assert len(crosses["against, all failed"]) == 18
    assert len({*crosses["against, failed"]}) == 1


def test_a_wide_interval_does_not_flatten_the_others():
    """It leaves the plot instead."""
    narrow = rates(ONE, TWO).svg()
    wide = rates(Interval(0.2, -1000, 1000), TWO).svg()

    ticks = [re.findall(rf">({MINUS}?[\d.]+)</text>", svg) for svg in (narrow, wide)]
    assert max(float(tick.replace(MINUS, "-")) for tick in ticks[1]) < 1
