"""The registry of measures: an entry is all that a new measure needs, to be computed and shown everywhere."""

import re
import runpy
from pathlib import Path

import pytest
import torch
from helpers.mc_command import X, output, program, records
from scipy import stats
from sklearn.preprocessing import StandardScaler

from dropkit import mc
from dropkit.mc import MCRegressor
from dropkit.mc.acquisition import score
from dropkit.mc.measures import ClassMeasures, Measure, ValueMeasures, measures_of
from dropkit.mc.metrics import classification_report, ood
from dropkit.mc.standard_errors import student_t_ratio

DOCS = Path(__file__).parents[2] / "docs"
EPS = torch.finfo(torch.float32).eps


def difference_of_top_two(p):
    top = p.topk(2, -1).values
    return top[..., 0] - top[..., 1]


def register(monkeypatch, owner, name, measure):
    """Add an entry to the class `owner`, as writing it into the class would do."""
    measure.__set_name__(owner, name)
    monkeypatch.setattr(owner, name, measure, raising=False)


@pytest.fixture
def _margin(monkeypatch):
    """A measure that is computed from the mean."""
    measure = Measure(
        "difference between the two largest probabilities",
        "probability",
        lambda means: difference_of_top_two(means.mean),
        higher_is_uncertain=False,
    )
    register(monkeypatch, ClassMeasures, "margin", measure)


@pytest.fixture
def _sample_margin(monkeypatch):
    """A measure that needs a sum of its own."""
    measure = Measure(
        "mean over samples of the difference between the two largest probabilities",
        "probability",
        lambda means: means.of("sample_margin"),
        higher_is_uncertain=False,
        statistic=difference_of_top_two,
    )
    register(monkeypatch, ClassMeasures, "sample_margin", measure)


@pytest.fixture
def _deviation(monkeypatch):
    """A measure of values, in their unit."""
    measure = Measure("standard deviation between the samples", "y", lambda means: means.variance.sqrt())
    register(monkeypatch, ValueMeasures, "deviation", measure)


def predicted(**options):
    return mc.predict(program()["net"](), X, seed=0, **options)


@pytest.mark.usefixtures("_margin")
def test_a_new_measure_is_an_attribute_with_a_standard_error():
    """It is computed from the mean of all samples."""
    r = predicted()

    assert (r.margin - difference_of_top_two(r.mean)).abs().max() <= 2 * EPS
    assert (r.standard_error["margin"] > 0).all()


@pytest.mark.usefixtures("_sample_margin")
def test_a_new_measure_may_sum_a_statistic_of_its_own():
    """The mean over the samples is that of the samples that are kept; its error is that of a mean."""
    r = predicted(samples=20, keep_samples=True)

    margins = difference_of_top_two(r.samples)
    assert (r.sample_margin - margins.mean(0)).abs().max() <= 20 * EPS
    # The error is computed in float64, from differences of the samples, and rounded once to float32.
    expected = margins.double().std(0) / 20**0.5 * student_t_ratio(torch.tensor(19.0, dtype=torch.float64))
    assert (r.standard_error["sample_margin"] / expected - 1).abs().max() <= EPS


def test_the_ratio_of_quantiles_is_that_of_students_t():
    """The expansion is within 1 % from 2 degrees of freedom on, as its documentation says."""
    degrees = torch.arange(2, 200, dtype=torch.float64)

    exact = torch.from_numpy(stats.t.ppf(0.975, degrees.numpy())) / stats.norm.ppf(0.975)
    assert (student_t_ratio(degrees) / exact - 1).abs().max() < 0.01


@pytest.mark.usefixtures("_margin")
def test_a_new_measure_is_in_the_table_the_page_and_the_records(folder):
    """By its name, with its mean and its standard error."""
    words = "net.py:net", "--data", "net.py:pair"

    table = output(*words, "--html", "page.html")

    mean = f"{torch.tensor([line['margin'] for line in records(*words)]).mean().item():.4g}"
    assert any(line.split()[:3:2] == ["margin", mean] for line in table.splitlines())
    assert re.search(
        rf'>margin</td>\s.*\s<td class="number" data-value="\S+">{mean}</td>', (folder / "page.html").read_text()
    )
    assert all(line["standard_error"]["margin"] > 0 for line in records(*words))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_margin", "torchvision")
def test_a_new_measure_detects_and_orders_inputs():
    """OOD detection, risk against coverage and acquisition take it by name, with its direction."""
    r = predicted()
    certain, uncertain = (mc.from_samples(torch.tensor([[[p, 1 - p]] * 3])) for p in (0.9, 0.6))

    assert ood(certain, uncertain, "margin").auroc == 1
    assert torch.equal(score(r, "margin"), -r.margin)
    assert classification_report(r, r.label, by="margin").risk_coverage.by == "margin"


@pytest.mark.usefixtures("_deviation")
def test_a_new_measure_of_values_follows_the_unit_of_the_targets():
    """The scikit-learn estimator returns it in the units of y."""
    inputs = X.numpy()
    model = MCRegressor(epochs=2, samples=10, random_state=0, tau=1.0).fit(inputs, 100 * inputs.sum(1))

    r = model.predict_mc(inputs)

    assert isinstance(model.target_scaler_, StandardScaler)
    # The variance is divided by one less than the ten samples, its root here by ten; both are rounded.
    assert (r.deviation / (r.variance * 9 / 10).sqrt() - 1).abs().max() <= 8 * EPS


@pytest.mark.parametrize("kind", [ClassMeasures, ValueMeasures])
def test_every_entry_says_what_it_is(kind):
    """A summary without a full stop, and the name of its attribute."""
    for name, measure in measures_of(kind).items():
        assert measure.name == name
        assert measure.summary
        assert not measure.summary.endswith(".")


def test_the_documentation_shows_the_registry():
    """The table in docs/monte-carlo.md is that of `make pages`."""
    write = runpy.run_path(str(DOCS / "write_measures.py"))

    assert write["table"]() in write["PAGE"].read_text(encoding="utf-8")


@pytest.mark.usefixtures("_margin")
def test_a_new_measure_is_in_the_table_of_the_documentation():
    """`make pages` writes it."""
    table = runpy.run_path(str(DOCS / "write_measures.py"))["table"]()

    assert "| `margin` | difference between the two largest probabilities | probability |" in table
