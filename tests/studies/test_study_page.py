"""The page and the files of a study: what they say is what the result says, and a browser shows it readably."""

import csv
import json
import re
import shutil
import struct
import sys
from functools import cache
from html import unescape
from xml.etree import ElementTree

import pytest
import torch
from helpers.browser import contrast, visit
from helpers.study_results import RESULTS, a_result

import dropkit
from dropkit.studies import Sizes, load
from dropkit.studies.columns import columns
from dropkit.studies.figures import figures
from dropkit.studies.page import page
from dropkit.studies.reports import write_reports
from dropkit.studies.trial_log import TrialLog

pytest.importorskip("matplotlib")
FIGURES = {
    "classification": ["error", "change", "calibration", "curves"],
    "regression": ["error", "change", "calibration", "curves"],
    "failed": ["error", "change", "calibration", "curves"],
    "all seeds failed": ["error", "change", "calibration", "curves"],
    "failed baseline": ["error", "change", "calibration", "curves"],
    "one seed": ["error", "change", "calibration", "curves"],
    "sites": ["sites", "calibration", "curves"],
    "long names": ["sites", "calibration", "curves"],
    "nothing yet": [],
    "unfinished": ["error", "change", "calibration", "curves"],
}


@cache
def drawn(name):
    """The whole page of a result."""
    return page(RESULTS[name]())


@pytest.mark.parametrize("name", RESULTS)
def test_the_page_shows_what_the_result_says(name):
    """The sentences first, then every cell of every table."""
    result = RESULTS[name]()

    text = unescape(page(result, []))

    for item in result.recommendations:
        assert -1 < text.index(item.sentence) < text.index("All settings")
    for model in {row.model for row in result.rows}:
        rows = [row for row in result.rows if row.model == model]
        for column in columns(result.plan, rows):
            for cell in column.cells:
                assert f">{cell.text}</td>" in text
    assert "nan<" not in text


@pytest.mark.parametrize("name", RESULTS)
def test_the_figures_are_those_that_the_numbers_allow(name):
    """What decides comes first; a study without numbers has none."""
    found = figures(RESULTS[name]())

    assert [figure.name for figure in found] == FIGURES[name]
    for figure in found:
        assert all(panel.alt and figure.caption for panel in figure.panels)


def test_alternative_texts_have_the_numbers():
    """Those who cannot see the plot read the means of every setting."""
    result = a_result()

    alt = figures(result)[0].panels[0].alt

    for row in (row for row in result.rows if row.model == "cnn"):
        assert f"{100 * row.metrics['test_error'].mean:.1f} %" in alt
    assert alt in unescape(drawn("classification"))


def test_a_failed_setting_has_no_mean_in_any_figure():
    """Neither the mean of the seeds that are left nor a change from them is drawn or described."""
    error, change, calibration, _ = figures(a_result(failed=[(1, 0)]))

    for figure in (error, change, calibration):
        assert "dropout 0.5" in figure.panels[0].alt
        assert "dropout 0.2" not in figure.panels[0].alt.replace("dropout2d", "")


def test_names_cannot_become_markup():
    """Of models, sites, failures and commands."""
    evil = "<script>alert(1)</script>&[b]"
    result = a_result([evil], failed=[(1, 0)], command=evil)

    text = page(result, figures(result)[:1])

    assert "<script>alert" not in text
    assert unescape(text).count(evil) >= 4


def test_the_page_says_how_to_get_it_again():
    """The command, versions and the recipe."""
    text = page(a_result(command="dropkit study --p 0.2"), [])

    for wanted in ("dropkit study --p 0.2", dropkit.__version__, "epochs", "python", "Linux"):
        assert wanted in text
    assert '<pre class="command">' not in page(a_result(), [])


def test_ids_are_unique_in_a_page():
    """Elements of several plots with equal ids must have equal contents."""
    contents = {}
    for plot in re.findall("<svg.*?</svg>", drawn("classification"), re.S):
        for element in ElementTree.fromstring(plot).iter():
            if "id" in element.attrib:
                contents.setdefault(element.attrib["id"], set()).add(ElementTree.tostring(element).strip())

    assert contents
    assert all(len(values) == 1 for values in contents.values())


def test_files_hold_the_result(tmp_path):
    """A page, a picture for each figure, a line of CSV for each trial, and everything as JSON."""
    result = a_result(["cnn"], failed=[(1, 0)])

    paths = write_reports(result, tmp_path / "new")

    assert sorted(paths) == sorted((tmp_path / "new").iterdir())
    assert [path.name for path in paths] == [
        "page.html", "error.png", "change.png", "calibration.png", "curves.png", "trials.csv", "result.json",
    ]  # fmt: skip
    assert json.loads(paths[-1].read_text()) == result.to_dict()
    assert all(struct.unpack(">II", path.read_bytes()[16:24]) > (700, 400) for path in paths[1:5])
    lines = list(csv.DictReader(paths[-2].read_text().splitlines()))
    assert len(lines) == len(result.outcomes)
    for line, outcome in zip(lines, result.outcomes, strict=True):
        assert (line["model"], line["kind"], int(line["seed"])) == (
            outcome.trial.model, outcome.trial.setting.kind, outcome.trial.seed,
        )  # fmt: skip
        assert line["failure"] == (outcome.failure or "")
        assert {name for name, value in outcome.metrics.items() if str(value) != line[name]} == set()


def test_files_are_replaced_as_a_whole(tmp_path, monkeypatch):
    """A full disk leaves the old page."""
    write_reports(RESULTS["nothing yet"](), tmp_path)
    before = (tmp_path / "page.html").read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_reports(RESULTS["unfinished"](), tmp_path)

    assert (tmp_path / "page.html").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_without_a_package_the_error_says_what_to_install(tmp_path, monkeypatch, package):
    """The message names the extra, and nothing is written."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "dropkit.report.page", raising=False)

    with pytest.raises(ImportError, match=re.escape('pip install "dropkit[study]"')):
        write_reports(a_result(), tmp_path / "out")

    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The reports of a small study of digits, read back from its folder."""
    from dropkit.studies.digits import load as load_digits
    from dropkit.studies.networks import networks_for

    folder = tmp_path_factory.mktemp("study")
    data = load_digits()
    models = networks_for(data, ["cnn", "mlp"])
    small = {"sizes": Sizes(60, 60, 60), "epochs": 2, "seeds": 2}
    dropkit.study(models, data, kinds=["dropout", "always-on"], p=(0.2, 0.5), folder=folder, **small)
    write_reports(load(folder), folder)
    return folder


def test_a_call_in_python_is_shown_as_it_was_typed():
    """What has its default is left out; functions have their names."""

    def net():
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(8, 2))

    def train(trial):
        return {"validation_loss": 1.0 + trial.seed, "test_loss": 1.0 + trial.seed}

    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    one = dropkit.study(net, (x, (x[:, 0] > 0).long()), p=0.5, seeds=2, epochs=1, kinds="dropout")
    own = dropkit.study(train=train, metric="loss", seeds=2)

    assert one.plan.provenance["command"] == "dropkit.study(net, data, p=0.5, seeds=2, epochs=1)"
    assert own.plan.provenance["command"] == "dropkit.study(train=train, seeds=2, metric='loss')"


def test_another_command_may_continue_a_study(tmp_path):
    """The folder keeps the first one, which began it."""
    first, second = (a_result(command=command).plan.to_dict() for command in ("first", "second"))

    for specification in (first, second):
        with TrialLog(tmp_path, specification, resume=True):
            pass

    assert load(tmp_path).plan.provenance["command"] == "first"


@pytest.mark.slow
def test_a_folder_holds_the_whole_result(real):
    """What is read from it is what the reports say."""
    assert load(real).to_dict() == json.loads((real / "result.json").read_text())


# The pages that a browser shows.
SHOWN = ("regression", "failed", "sites", "long names", "nothing yet")
READ = """() => {
  const color = (element, property) => getComputedStyle(element)[property].match(/[\\d.]+/g).slice(0, 3).map(Number)
  const series = [...document.querySelectorAll('svg path')]
    .filter(path => path.style.stroke.startsWith('var(--series')).map(path => color(path, 'stroke'))
  const paper = color(document.querySelector('main'), 'backgroundColor')
  const text = [...document.querySelectorAll('h1, h2, h3, p, li, td, th, pre')].map(element => color(element, 'color'))
  const drawn = [...document.querySelectorAll('svg text')].map(element => color(element, 'fill'))
  return {paper, text, drawn, series, inner: window.innerWidth, wide: document.documentElement.scrollWidth,
          plots: [...document.querySelectorAll('svg')].map(plot => plot.getBoundingClientRect().width)}
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


@pytest.fixture(scope="module")
def files(real, tmp_path_factory):
    """Pages by name: of a real study, and of numbers that are unusual."""
    folder = tmp_path_factory.mktemp("pages")
    for name in SHOWN:
        (folder / f"{name}.html").write_text(drawn(name))
    return {"real": real / "page.html", **{name: folder / f"{name}.html" for name in SHOWN}}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["real", *SHOWN])
def test_a_browser_shows_the_page_readably_and_asks_for_nothing(files, browser, name, scheme):
    """Light and dark, on a screen and on a phone: no messages, no requests, enough contrast, no sideways scrolling."""
    messages, requests, views = visit(browser, files[name], scheme, READ, (1280, 360))

    assert messages == []
    assert requests == [files[name].as_uri()] * len(views)
    for view in views:
        # The ratios that WCAG 2.2 requires of text and of graphics.
        assert min(contrast(color, view["paper"]) for color in view["text"] + view["drawn"]) >= 4.5
        assert min((contrast(color, view["paper"]) for color in view["series"]), default=3) >= 3
        assert view["wide"] <= view["inner"]
        assert max(view["plots"], default=0) <= view["inner"]
    assert (sum(views[0]["paper"]) > 600) == (scheme == "light")


@pytest.mark.slow
def test_a_click_on_a_heading_sorts_each_table_by_its_numbers(files, browser):
    """Failed settings, which have no number, come last."""
    screen = browser.new_page()
    screen.goto(files["failed"].as_uri())
    for table in range(2):
        heading = screen.locator("table.sites").nth(table).locator("th", has_text="test error")
        heading.click()
        cells = screen.locator("table.sites").nth(table).locator("tbody tr td:nth-child(3)").all_inner_texts()

        numbers = [float(cell.split()[0]) for cell in cells[:-1]]
        assert numbers == sorted(numbers)
        assert cells[-1] == "2 failed"
    screen.close()
