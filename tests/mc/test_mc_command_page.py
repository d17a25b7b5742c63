"""`dropkit mc`: the page that it writes."""

import re
import shutil
from dataclasses import replace

import pytest
import torch
from helpers.browser import contrast, visit
from helpers.mc_command import output

from dropkit import mc
from dropkit.mc.page import page
from dropkit.mc.summary import Summary

PAGES = {
    "truth": "net.py:net --data net.py:pair",
    "no truth": "net.py:net --data net.py:inputs",
    "tokens": "net.py:tokens --data net.py:sentences --class-dim -1",
    "values": "net.py:value --data net.py:values --task regression",
    "values, no truth": "net.py:two --data net.py:inputs --task regression",
    "images": "net.py:of_images --data net.py:images --classes cat,dog,emu",
    "pixels": "net.py:of_pixels --data net.py:pictures --class-dim 1 --classes cat,dog,emu",
    "labels": "net.py:net --data net.py:label_sets --task multilabel",
    "one sample": "net.py:net --data net.py:pair --samples 1 --top 0",
    "not a number": "net.py:Broken --data net.py:inputs",
}
FIGURES = {"truth": 3, "tokens": 3, "images": 3, "pixels": 4, "labels": 3, "values": 2, "one sample": 3}


@pytest.mark.parametrize("kind", PAGES)
def test_the_page_shows_what_the_table_shows(folder, kind):
    """The same inputs and notes, and a figure for each plot that the data allow."""
    out = output(*PAGES[kind].split(), "--html", "page.html")
    html = (folder / "page.html").read_text()

    for line in re.findall(r"^ +(\d+)   ", out.partition("least certain")[2], re.M):
        assert re.search(rf' data-value="{line}">(<img [^>]*> )?{line}</td>', html)
    for note in re.findall(r"^note: (.{30})", out, re.M):
        assert note in html
    assert html.count("<figure>") == html.count("<svg") == FIGURES.get(kind, 1)
    assert ("Least certain" in html) == ("least certain" in out)


def test_ids_are_unique_in_a_page(folder):
    """Elements of several plots with equal ids must have equal contents."""
    output(*PAGES["truth"].split(), "--html", "page.html")
    html = (folder / "page.html").read_text()

    bodies = re.findall(r'<(\w+) id="([^"]+)"(.*?)</\1>', html, re.S)

    assert len({name for _, name, _ in bodies}) == len({(name, body) for _, name, body in bodies})


def test_names_are_escaped_in_the_page():
    """A title or a note cannot become markup of the page."""
    prediction = mc.from_samples(torch.full((2, 3, 2), 0.5))
    prediction = replace(prediction, notes=("<script>alert(1)</script>",))

    html = page(Summary(prediction, truth=None, report=None, top=1), "<script>alert(2)</script>&")

    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(2)&lt;/script&gt;&amp;") == 2
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 1


# The contrast ratios that WCAG 2.2 requires of text and of graphics.
TEXT, GRAPHICS = 4.5, 3.0
READ = """() => {
  const images = [...document.querySelectorAll('td img')]
  const color = (element, property) => getComputedStyle(element)[property].match(/[\\d.]+/g).slice(0, 3).map(Number)
  const paper = color(document.querySelector('main'), 'backgroundColor')
  const words = 'h1, h2, p, li, td, th, small, figcaption'
  const text = [...document.querySelectorAll(words)].map(element => color(element, 'color'))
  const drawn = [...document.querySelectorAll('svg text')].map(element => color(element, 'fill'))
  const boxes = [...document.querySelectorAll('svg')].map(element => element.getBoundingClientRect())
  return {paper, text, drawn, heights: boxes.map(box => box.height), inner: window.innerWidth,
          wide: document.documentElement.scrollWidth, bars: [[31, 111, 235]],
          images: images.map(image => [image.naturalWidth, image.getBoundingClientRect().width])}
}"""


@pytest.fixture(scope="module")
def browser():
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["images", "pixels", "no truth", "values"])
def test_a_browser_shows_the_page_readably_and_asks_for_nothing(folder, browser, kind, scheme):
    """Light and dark, on a screen and on a telephone: no messages, no requests, enough contrast, no overflow."""
    output(*PAGES[kind].split(), "--html", "page.html")

    messages, requests, views = visit(browser, folder / "page.html", scheme, READ, (1280, 360))

    assert messages == []
    assert requests == [(folder / "page.html").as_uri()] * len(views)
    for view in views:
        assert min(contrast(color, view["paper"]) for color in view["text"] + view["drawn"]) >= TEXT
        assert min(contrast(color, view["paper"]) for color in view["bars"]) >= GRAPHICS
        assert view["wide"] <= view["inner"]
        assert len(view["images"]) == (10 if kind in ("images", "pixels") else 0)
        assert all(natural == 8 and shown >= 32 for natural, shown in view["images"])
        assert 100 < min(view["heights"]) <= max(view["heights"]) < 500
    assert len({tuple(view["paper"]) for view in views}) == 1
    assert (sum(views[0]["paper"]) > 600) == (scheme == "light")


@pytest.mark.slow
def test_a_click_or_a_key_on_a_heading_sorts_a_table(folder, browser):
    """By the number that is shown, and the other way round the second time; every heading can have the focus."""
    output(*PAGES["images"].split(), "--html", "page.html")
    screen = browser.new_page()
    screen.goto((folder / "page.html").as_uri())
    table = screen.locator("table").last
    heading = table.locator("th", has_text="entropy")
    column = table.locator("th").all_inner_texts().index(heading.inner_text()) + 1

    def numbers():
        return [float(text) for text in table.locator(f"tbody td:nth-child({column})").all_inner_texts()]

    heading.click()
    assert numbers() == sorted(numbers())
    for key in ("Enter", "Space"):
        before = numbers()
        heading.press(key)
        assert numbers() == before[::-1]
    assert heading.get_attribute("aria-sort") == "ascending"
    assert table.locator("th[tabindex='0']").count() == table.locator("th").count()
    screen.close()
