"""The plots of the pages: SVG that stands inside a page and takes its ink."""

import math
import re
import sys
from xml.etree import ElementTree

import pytest

from dropkit.report import plots

matplotlib = pytest.importorskip("matplotlib")
SVG = "{http://www.w3.org/2000/svg}"
INF, NAN = math.inf, math.nan
# Each plot: usual, of nothing, of numbers that are none, and of one.
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
    "histogram of what is below zero": lambda: plots.histogram([-1.0, -2.0], "doubt"),
    "histogram of large numbers": lambda: plots.histogram([1e9, 1e9 + 1], "doubt"),
}


def drawn(svg, style):
    """The points of every path of this style, where matplotlib cuts to the axes: what is data and no axis."""
    paths = [one for one in ElementTree.fromstring(svg).iter(f"{SVG}path") if "clip-path" in one.attrib]
    found = [re.findall(r"[ML] (\S+) (\S+)", one.attrib["d"]) for one in paths if style in one.attrib["style"]]
    return [[(float(x), float(y)) for x, y in points] for points in found]


def bars(svg):
    """(left, width, height) of each, as far as it has one."""
    found = [
        (points[0][0], points[1][0] - points[0][0], points[0][1] - points[2][1]) for points in drawn(svg, "fill: #")
    ]
    return [bar for bar in found if bar[2] > 0]


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_one_element_of_valid_xml(name):
    """It can stand inside any page, and names what its axes show."""
    root = ElementTree.fromstring(PLOTS[name]())

    texts = {one.text for one in root.iter(f"{SVG}text")}
    assert root.tag == f"{SVG}svg"
    assert texts >= {"reliability": {"confidence", "accuracy"}, "curve": {"kept", "error"}}.get(
        name.split()[0], {"doubt", "inputs"}
    )


@pytest.mark.parametrize("name", PLOTS)
def test_no_ink_is_fixed(name):
    """Text, axes and helping lines have the colour of the page's text; bars and lines have one that suits both."""
    svg = PLOTS[name]()

    colors = set(re.findall(r"#[0-9a-fA-F]{3,8}\b(?!\))|(?:fill|stroke): (?!none|#)\w+", re.sub(r'"#\w+"', "", svg)))

    assert colors <= {"fill: currentColor", "stroke: currentColor", "#1f6feb"}
    assert {"fill: currentColor", "stroke: currentColor"} <= colors
    for text in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        assert "fill: currentColor" in text.attrib["style"]


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_asks_for_nothing_and_runs_nothing(name):
    """What is referred to lies inside; the addresses of XML's own words are no requests."""
    svg = PLOTS[name]()

    assert set(re.findall(r'https?://[^"]+', svg)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert all(one.startswith("#") for one in re.findall(r'href="([^"]+)"', svg))
    assert not re.search(r"<script|<image|<metadata|@import|@font-face", svg)


@pytest.mark.parametrize("name", PLOTS)
def test_equal_plots_are_equal_text(name):
    """Neither a date nor chance is in them."""
    assert PLOTS[name]() == PLOTS[name]()


def test_the_callers_style_is_neither_used_nor_changed():
    """A style for paper, such as a grid in grey, would be a fixed ink."""
    expected = PLOTS["curve"]()
    style = {"axes.grid": True, "text.color": "red", "axes.facecolor": "white", "font.size": 30, "lines.linewidth": 9}

    with matplotlib.rc_context(style):
        svg = PLOTS["curve"]()
        left = {name: matplotlib.rcParams[name] for name in style}

    assert svg == expected
    assert left == style


def test_bars_of_few_labels_are_pale_and_bins_of_none_have_no_bar():
    """A bin without labels has no accuracy: NaN, which is not drawn, and no 0."""
    svg = plots.reliability([(0.0, 0.25), (0.25, 0.5), (0.5, 1.0)], [NAN, 0.5, 1.0], [0, 1, 100])

    (_, width, height), (_, wider, higher) = bars(svg)
    assert (wider, higher) == pytest.approx((2 * width, 2 * height), abs=1e-4)
    assert "opacity: 0.325" in svg


def test_what_is_not_finite_is_left_out_of_a_histogram():
    """The other values are drawn as if they were alone."""
    alone = plots.histogram([0.1, 0.2, 0.2], "doubt")

    assert plots.histogram([NAN, 0.1, INF, 0.2, -INF, 0.2], "doubt") == alone
    assert [round(height / bars(alone)[0][2]) for _, _, height in bars(alone)] == [1, 2]


def test_a_histogram_begins_at_zero():
    """Its first bin is that of 0, wherever its values lie: bars can be compared between pages."""
    (first, width, _), (last, _, _) = bars(plots.histogram([0.0, 4.0], "doubt", bins=4))

    assert last - first == pytest.approx(3 * width, abs=1e-4)
    assert len(bars(plots.histogram([3.0, 4.0], "doubt", bins=4))) == 1


def test_what_is_not_finite_is_left_out_of_a_curve():
    """The line goes on to the next number."""
    whole = plots.curve([0.0, 0.5, 1.0], [0.1, 0.2, 0.3], "kept", "error")

    assert plots.curve([0.0, 0.2, 0.5, INF, 1.0], [0.1, NAN, 0.2, 0.2, 0.3], "kept", "error") == whole


@pytest.mark.parametrize("count", [2, 399, 400, 801, 1000, 100_000])
def test_a_curve_of_many_points_is_thinned_and_arrives(count):
    """As many points as can be told apart; the last is the error of all inputs, which must not be lost."""
    x = [(place + 1) / count for place in range(count)]
    # A straight line would be drawn with two points by matplotlib itself.
    y = [place % 7 for place in range(count - 1)] + [6]

    (line,) = drawn(plots.curve(x, y, "kept", "error"), "stroke: #1f6feb")

    (full,) = drawn(plots.curve([0.0, 1.0], [0.0, 6.0], "kept", "error"), "stroke: #1f6feb")
    assert line[-1] == pytest.approx(full[-1], abs=1e-3)
    assert len(line) <= 800


def test_lists_of_different_lengths_are_refused():
    """A point needs both numbers, and a bar all three."""
    with pytest.raises(ValueError, match="shorter"):
        plots.curve([0.0, 1.0], [0.5], "kept", "error")
    with pytest.raises(ValueError, match="longer"):
        plots.reliability([(0.0, 1.0)], [0.5, 0.5], [1])


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    """The extra that brings it is named."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ImportError, match=re.escape('plots need matplotlib: pip install "dropkit[mc]"')):
        plots.histogram([0.1], "doubt")
