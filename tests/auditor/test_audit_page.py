"""The page of an audit: every column is on the screen, rows fold, sort and filter, and source lines are shown."""

import re
import shutil
from html import unescape

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dropkit
from dropkit.auditor.report_rows import groups


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.a_dropout_with_a_long_name = nn.Linear(8, 8), nn.Dropout(0.1)

    def forward(self, x):
        return self.a_dropout_with_a_long_name(self.linear(x)) + F.dropout(x.tanh(), 0.3, self.training)


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder_layers = nn.ModuleList(Block() for _ in range(12))
        self.off, self.drop = nn.Dropout(0.0), nn.Dropout2d(0.2)

    def forward(self, x):
        for layer in self.encoder_layers:
            x = layer(x)
        return self.off(self.drop(x.view(-1, 2, 2, 2).relu().sigmoid()) * 2).flatten(1)


@pytest.fixture(scope="module")
def report():
    return dropkit.audit(Deep(), torch.randn(16, 8))


def test_equal_layers_share_a_row_that_unfolds(report):
    """Each site is in it; this needs no script."""
    page = report.to_html()

    assert "encoder_layers.0-11.a_dropout_with_a_long_name" in page
    assert all(page.count(f"encoder_layers.{i}.a_dropout_with_a_long_name<") == 1 for i in range(12))


def test_the_page_shows_the_lines_of_the_program(report):
    """Path, line and text."""
    page = unescape(report.to_html())

    for group in groups(report.sites):
        assert group.place in page
        assert group.source in page
    assert "return self.a_dropout_with_a_long_name(self.linear(x)) + F.dropout(x.tanh(), 0.3, self.training)" in page


def test_the_headings_have_units(report):
    """Of everything that is no plain word."""
    heads = [re.sub(r"<[^>]+>", " ", head).split() for head in re.findall(r"<th.*?</th>", report.to_html())]

    assert ["saved", "bytes"] in heads
    assert ["time", "share", "of", "step"] in heads
    assert ["dropped", "fraction"] in heads


def test_a_notebook_gets_no_script(report):
    """It would not run there."""
    assert "<script" not in report._repr_html_()
    assert "encoder_layers.0-11" in report._repr_html_()


@pytest.fixture(scope="module")
def screen(report, tmp_path_factory):
    """The page in a browser of 1280 x 800 pixels."""
    sync = pytest.importorskip("playwright.sync_api")
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    file = tmp_path_factory.mktemp("page") / "audit.html"
    file.write_text(report.to_html())
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(file.as_uri())
        yield page
        browser.close()


def shown(screen):
    return [text.split("\n")[0] for text in screen.locator("table.sites tbody tr:visible").all_inner_texts()]


@pytest.mark.slow
def test_no_column_is_cut(screen):
    """Nothing is wider than the page."""
    assert screen.evaluate("document.documentElement.scrollWidth <= 1280")
    assert screen.evaluate(
        "[...document.querySelectorAll('.scroll')].every((box) => box.scrollWidth <= box.clientWidth)"
    )


@pytest.mark.slow
def test_sites_at_rate_0_are_hidden_until_they_are_asked_for(screen):
    """As in the table for terminals."""
    before = len(shown(screen))
    screen.get_by_role("checkbox").uncheck()
    after = len(shown(screen))
    screen.get_by_role("checkbox").check()

    assert after == before + 1


@pytest.mark.slow
def test_a_click_on_a_heading_sorts(screen):
    """Up, then down; numbers as numbers."""
    heading = screen.locator("table.sites th").nth(2)
    heading.click()
    up = [row.split("\t") for row in screen.locator("table.sites tbody tr:visible").all_inner_texts()]
    heading.click()
    down = [row.split("\t") for row in screen.locator("table.sites tbody tr:visible").all_inner_texts()]

    assert up == down[::-1]
    assert [float(row[2]) for row in up] == sorted(float(row[2]) for row in up)


@pytest.mark.slow
def test_words_filter_the_rows(screen):
    """All of them must occur, in any column."""
    screen.get_by_label("filter").fill("dropout2d CHANNEL")
    found = shown(screen)
    screen.get_by_label("filter").fill("")

    assert found == ["drop"]
    assert len(shown(screen)) == 3
