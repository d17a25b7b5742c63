"""experiments/reproduce runs in small form, continues after an interruption, and its page follows from its data."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from dropkit.studies import digits

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture
def reproduce(monkeypatch):
    """The modules of the experiment; a local import leaves them out of the path of other tests."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import reproduce.__main__
    import reproduce.claims
    import reproduce.report

    return reproduce


def quick(reproduce, folder):
    return CliRunner().invoke(reproduce.__main__.main, ["--quick", "--folder", str(folder)], catch_exceptions=False)


def test_the_page_is_that_of_its_data(reproduce):
    """Every number between the marks follows from docs/reproduction.json."""
    page = (DOCS / "reproduction.md").read_text(encoding="utf-8")

    assert page == reproduce.report.with_results(page, reproduce.report.read(DOCS))


def test_the_data_is_that_of_the_experiments(reproduce):
    """Every trial of the experiments, as they are now, has its outcome."""
    stored, data = reproduce.report.read(DOCS), digits.load()

    for name, experiment in reproduce.__main__.EXPERIMENTS.items():
        plan = experiment.plan(data)
        assert stored[name].plan.trials == plan.trials
        assert stored[name].is_finished
        assert stored[name].plan.description["networks"] == plan.description["networks"]


@pytest.mark.long
def test_a_quick_run_writes_all_and_a_second_one_trains_nothing(reproduce, tmp_path):
    """An interrupted trial runs again, finished ones do not, and both runs write equal pages."""
    first = quick(reproduce, tmp_path)
    page = (tmp_path / "docs/reproduction.md").read_text()
    trials = tmp_path / "figure-10" / "trials.jsonl"
    lines = trials.read_bytes()
    trials.write_bytes(lines[:-9])

    second = quick(reproduce, tmp_path)

    assert "figure 10: 24 of 24 trials to train" in first.output
    assert "figure 10: 1 of 24 trials to train" in second.output
    assert "figure 9a: 0 of 16 trials to train" in second.output
    written = {path.name for path in (tmp_path / "docs").rglob("*.*")}
    assert written == {"reproduction.md", "reproduction.json", "figure-9.png", "figure-10.png", "batchwise.png"}
    again = (tmp_path / "docs/reproduction.md").read_text()
    # The time of the trial that ran twice may differ in the line about the whole.
    assert [x for x in again.splitlines() if "minutes" not in x] == [x for x in page.splitlines() if "minutes" not in x]


@pytest.mark.parametrize(
    ("expected", "differences", "verdict"),
    [
        ("POSITIVE", (1.0, 1.1, 0.9), "agrees"),
        ("POSITIVE", (-1.0, -1.1, -0.9), "disagrees"),
        ("POSITIVE", (-1.0, 1.5, 0.9), "not shown"),
        ("ZERO", (0.1, -0.1, 0.05), "agrees"),
        ("ZERO", (2.0, 2.1, 1.9), "disagrees"),
        ("ZERO", (-2.0, -2.1, -1.9), "disagrees"),
        ("ZERO", (0.8, 1.1, 0.9), "not shown"),
        ("NOT_POSITIVE", (-2.0, -2.1, -1.9), "agrees"),
        ("NOT_POSITIVE", (2.0, 2.1, 1.9), "disagrees"),
        ("NOT_POSITIVE", (0.8, 1.1, 0.9), "not shown"),
    ],
)
def test_a_verdict_follows_from_the_interval(reproduce, expected, differences, verdict):
    """A whole interval on the expected side, or within the margin, agrees; on the other side it disagrees."""
    claim = reproduce.claims.Claim("", "", differences, reproduce.claims.Expected[expected], margin=1.0)

    assert claim.verdict(comparisons=1) == verdict


def test_batchwise_dropout_has_the_layers_of_dropout_by_element(reproduce):
    """No kind drops inputs, except in figure 10; batchwise dropout runs on submatrices."""
    experiments = reproduce.__main__.EXPERIMENTS
    from reproduce.experiment import mlp

    from dropkit.studies.training import make
    from dropkit.studies.trial import Trial

    def layers(name, setting):
        trial = Trial(next(iter(experiments[name].settings)), setting, 0)
        units = (32,) * len(experiments[name].hidden(trial))
        return make(trial, lambda: mlp(trial, units), digits.load().example)

    def rates(model):
        return [module.p for module in model.modules() if hasattr(module, "p")]

    _, element, *_, batchwise = experiments["batchwise"].settings["mlp"]
    assert rates(layers("batchwise", element)) == [element.p] * 2
    assert type(layers("batchwise", batchwise)).__name__ == "BatchwiseSequential"
    assert rates(layers("figure 10", reproduce.claims.ALL_SITES)) == [0.2, 0.5, 0.5, 0.5]
