"""Plots: SVG elements for a page, in its text colour."""

import math
import re
import sys
from xml.etree import ElementTree

import pytest

from dropkit.report import plots

matplotlib = pytest.importorskip("matplotlib")
SVG = "{http://www.w3.org/2000/svg}"
INF, NAN = math.inf, math.nan
# matplotlib writes coordinates with 6 decimals.
ROUNDING = 0.5e-6
# Each plot: of usual values, of none, of values that are not finite, and of one.
PLOTS = {
    "reliability": lambda: plots.reliability([(0.0, 0.5), (0.5, 1.0)], [0.4, 0.8], [3, 9]),
    "reliability of nothing": lambda: plots.reliability([], [], []),
    "reliability of empty bins": lambda: plots.reliability([(0.0, 0.5), (0.5, 1.0)], [NAN, NAN], [0, 0]),
    "curve": lambda: plots.curve([0.1 * place for place in range(11)], [0.3] * 11, "kept", "error", diagonal=True),
    "curve of nothing": lambda: plots.curve([], [], "kept", "error"),
    "curve of NaN": lambda: plots.curve([0.0, 1.0], [NAN, INF], "kept", "error"),
    "curve of one": lambda: plots.curve([1.0], [0.2], "kept", "error"),
    "histogram": lambda: plots.histogram([0.0, 0.1, 0.1, 0.4], "doubt"),
    "histogram of nothing": lambda: plots.histogram([], "doubt"),
    "histogram of NaN": lambda: plots.histogram([NAN, INF, -INF], "doubt"),
    "histogram of zeros": lambda: plots.histogram([0.0, 0.0], "doubt"),
    "histogram of negative values": lambda: plots.histogram([-1.0, -2.0], "doubt"),
    "histogram of large numbers": lambda: plots.histogram([1e9, 1e9 + 1], "doubt"),
}


def drawn(svg, style):
    """Points of every path of this style that is clipped to the axes: these are the data."""
    paths = [path for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if "clip-path" in path.attrib]
    points = [re.findall(r"[ML] (\S+) (\S+)", path.attrib["d"]) for path in paths if style in path.attrib["style"]]
    return [[(float(x), float(y)) for x, y in line] for line in points]


def bars(svg):
    """(left, width, height) of each bar of some height."""
    corners = drawn(svg, "fill: #")
    all_bars = [(first[0], second[0] - first[0], first[1] - third[1]) for first, second, third, *_ in corners]
    return [bar for bar in all_bars if bar[2] > 0]


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_one_element_of_valid_xml(name):
    """It can be part of any page, and its axes are labelled."""
    root = ElementTree.fromstring(PLOTS[name]())

    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert root.tag == f"{SVG}svg"
    assert texts >= {"reliability": {"confidence", "accuracy"}, "curve": {"kept", "error"}}.get(
        name.split()[0], {"doubt", "inputs"}
    )


@pytest.mark.parametrize("name", PLOTS)
def test_colours_fit_light_and_dark_pages(name):
    """Text, axes and the diagonal have the page's text colour; bars and lines have one that fits both."""
    svg = PLOTS[name]()

    colors = set(re.findall(r"#[0-9a-fA-F]{3,8}\b(?!\))|(?:fill|stroke): (?!none|#)\w+", re.sub(r'"#\w+"', "", svg)))

    assert colors <= {"fill: currentColor", "stroke: currentColor", "#1f6feb"}
    assert {"fill: currentColor", "stroke: currentColor"} <= colors
    for text in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        assert "fill: currentColor" in text.attrib["style"]


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_fetches_nothing_and_has_no_script(name):
    """References stay inside the element; the only addresses are those of XML namespaces."""
    svg = PLOTS[name]()

    assert set(re.findall(r'https?://[^"]+', svg)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]+)"', svg))
    assert not re.search(r"<script|<image|<metadata|@import|@font-face", svg)


@pytest.mark.parametrize("name", PLOTS)
def test_equal_plots_are_equal_text(name):
    """There is neither a date nor a random id in them."""
    assert PLOTS[name]() == PLOTS[name]()


def test_the_callers_style_is_neither_used_nor_changed():
    """A style for paper, such as a grey grid, would be a fixed colour."""
    expected = PLOTS["curve"]()
    style = {"axes.grid": True, "text.color": "red", "axes.facecolor": "white", "font.size": 30, "lines.linewidth": 9}

    with matplotlib.rc_context(style):
        svg = PLOTS["curve"]()
        left = {name: matplotlib.rcParams[name] for name in style}

    assert svg == expected
    assert left == style


def test_bars_of_few_labels_are_pale_and_empty_bins_have_no_bar():
    """The accuracy of a bin without labels is NaN, which is not drawn as 0."""
    svg = plots.reliability([(0.0, 0.25), (0.25, 0.5), (0.5, 1.0)], [NAN, 0.5, 1.0], [0, 1, 100])

    (_, width, height), (_, wider, higher) = bars(svg)
    # A size is the difference of two coordinates, and one of the sizes counts twice: 2 + 2 * 2 roundings.
    assert abs(wider - 2 * width) < 6 * ROUNDING
    assert abs(higher - 2 * height) < 6 * ROUNDING
    assert "opacity: 0.325" in svg


def test_a_histogram_omits_values_that_are_not_finite():
    """The other values are drawn as without it."""
    alone = plots.histogram([0.1, 0.2, 0.2], "doubt")

    assert plots.histogram([NAN, 0.1, INF, 0.2, -INF, 0.2], "doubt") == alone
    assert [round(height / bars(alone)[0][2]) for _, _, height in bars(alone)] == [1, 2]


def test_a_histogram_begins_at_zero():
    """Its first bin begins at 0 whatever the values are, so that pages can be compared."""
    (first, width, _), (last, _, _) = bars(plots.histogram([0.0, 4.0], "doubt", bins=4))

    # Two coordinates, and three times the difference of two: 2 + 3 * 2 roundings.
    assert abs(last - first - 3 * width) < 8 * ROUNDING
    assert len(bars(plots.histogram([3.0, 4.0], "doubt", bins=4))) == 1


def test_a_curve_omits_points_that_are_not_finite():
    """The line connects the points around them."""
    whole = plots.curve([0.0, 0.5, 1.0], [0.1, 0.2, 0.3], "kept", "error")

    assert plots.curve([0.0, 0.2, 0.5, INF, 1.0], [0.1, NAN, 0.2, 0.2, 0.3], "kept", "error") == whole


@pytest.mark.parametrize("count", [2, 399, 400, 801, 1000, 100_000])
def test_a_curve_of_many_points_shows_few_and_the_last(count):
    """The last point is the error over all inputs, which must not be lost."""
    x = [(place + 1) / count for place in range(count)]
    # A straight line would be drawn with two points by matplotlib itself.
    y = [place % 7 for place in range(count - 1)] + [6]

    (line,) = drawn(plots.curve(x, y, "kept", "error"), "stroke: #1f6feb")

    (full,) = drawn(plots.curve([0.0, 1.0], [0.0, 6.0], "kept", "error"), "stroke: #1f6feb")
    assert line[-1] == full[-1]
    assert len(line) <= 800


def test_lists_of_different_lengths_are_rejected():
    """A point needs two numbers and a bar three."""
    with pytest.raises(ValueError, match="shorter"):
        plots.curve([0.0, 1.0], [0.5], "kept", "error")
    with pytest.raises(ValueError, match="longer"):
        plots.reliability([(0.0, 1.0)], [0.5, 0.5], [1])


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    """The message names the extra."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ImportError, match=re.escape('a plot needs matplotlib: pip install "dropkit[mc]"')):
        plots.histogram([0.1], "doubt")
