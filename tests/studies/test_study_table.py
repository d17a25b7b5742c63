"""The result of a study as text: every number of the table is that of the rows, within 80 characters."""

import json
import re

import pytest
from helpers.study_results import RESULTS, SITES, a_result, classification

from dropkit.studies.columns import Format, columns
from dropkit.studies.evaluation import Metric
from dropkit.studies.setting import Setting, ablation
from dropkit.studies.statistics import Estimate

NAN = float("nan")


def lines_of(text, kind):
    return [line.split() for line in text.splitlines() if line.startswith(f"{kind} ")]


@pytest.mark.parametrize("name", RESULTS)
def test_lines_have_at_most_80_characters(name):
    """Whatever was studied, and however it went; longer names are folded."""
    assert max(map(len, str(RESULTS[name]()).splitlines())) <= 80


def test_the_table_shows_the_numbers_of_the_rows():
    """Errors in percent, the paired change with its interval, and plain beside Monte Carlo."""
    result = a_result(["cnn"])
    row = next(row for row in result.rows if row.setting == Setting("dropout", 0.5))

    cells = " ".join(lines_of(str(result), "dropout")[1])

    change = row.changes["test_error"]
    assert f"{100 * row.metrics['test_error'].mean:.1f} ±" in cells
    assert f"{100 * row.metrics['mc_test_error'].mean:.1f}" in cells
    assert f"{100 * change.mean:+.1f} ({100 * change.low:+.1f}, {100 * change.high:+.1f})" in cells
    assert f"{row.metrics['test_nll'].mean:.2f} {row.metrics['mc_test_nll'].mean:.2f}" in cells
    assert cells.endswith("1.5")


def test_the_calibration_error_has_the_sign_of_the_overconfidence():
    """Plus where the model is overconfident: at 0.2 here, not at 0.5."""
    found = next(column for column in columns(a_result().plan, a_result(["cnn"]).rows) if column.heading == "ECE")

    assert [cell.text for cell in found.cells] == ["+5.0", "+5.0", "-5.0", "+5.0", "-5.0"]


@pytest.mark.parametrize("name", [*RESULTS, "sites"])
def test_the_legend_explains_the_columns_that_are_shown(name):
    """Of the abbreviations in the headings each one, and none of a column that did not fit."""
    result = a_result(["cnn"], ablation("dropout", 0.5, SITES)) if name == "sites" else RESULTS[name]()

    text = str(result)

    words = {word for line in text.splitlines() if re.match(" *kind |( +[%A-Za-z]+)+$", line) for word in line.split()}
    for short, explained in {"ECE": "ECE: ", "MC": "MC: ", "s": "s: seconds"}.items():
        assert (f" {explained}" in " ".join(text.split())) == (short in words), short


def test_failed_trials_are_words_and_no_numbers():
    """Neither the mean of the seeds that are left nor a change from them is shown."""
    text = str(a_result(["cnn"], failed=[(1, 0), (1, 2)]))

    assert lines_of(text, "dropout")[0] == ["dropout", "0.2", "2", "failed", "1.5"]
    assert "failed: dropout p=0.2, seeds 0, 2: test_nll is not finite" in text
    assert "nan" not in text


def test_missing_trials_are_counted():
    """An unfinished study says so."""
    result = RESULTS["unfinished"]()

    assert re.findall("missing: .*", str(result)) == ["missing: 6 of 15 trials", "missing: 10 of 15 trials"]
    assert "missing" not in str(a_result())


def test_sites_have_numbers_that_a_legend_explains():
    """Names of modules do not fit into a column."""
    text = str(a_result(["cnn"], ablation("dropout", 0.5, SITES)))

    assert [line for line in text.splitlines() if line.startswith("site ")] == [
        f"site {number}: {site}" for number, site in enumerate(SITES, start=1)
    ]
    assert [" ".join(cells[2:5]) for cells in lines_of(text, "dropout")[1:]] == [
        *("only 1 16.2", "only 2 16.2", "only 3 16.2"),
        *("all but 1", "all but 2", "all but 3"),
    ]


def test_colours_are_for_terminals():
    """Escape codes only on request: green for better, red for worse; the text is the same."""
    result = a_result(["cnn"], seeds=8)

    plain, colored = result.table(), result.table(color=True)

    assert "\x1b" not in plain
    assert "\x1b[32m" in colored or "\x1b[1;32m" in colored
    assert re.sub(r"\x1b\[[\d;]*m", "", colored).split() == plain.split()


def test_a_metric_of_ones_own_is_shown_with_others():
    """Better is higher here; the name of the metric is the heading."""

    def measure(trial):
        rate = 0 if trial.setting.is_baseline else max(trial.setting.rates)
        value = 0.8 + (0.1 + 0.001 * trial.seed) * rate
        return {"validation_accuracy": value, "test_accuracy": value, "test_words_per_line": 1234.5 + trial.seed}

    result = a_result(["model"], metric=Metric("accuracy", "accuracy", is_higher_better=True), measure=measure)
    found = {column.heading: column for column in columns(result.plan, result.rows)}

    assert {cell.verdict for cell in found["change"].cells[1:]} == {"better"}
    assert found["words_per_line"].cells[0].text == "1236"
    assert "use dropout p=0.5" in str(result)


def test_the_least_important_columns_are_left_out():
    """Metrics of one's own go before those that every study has; no number is cut."""

    def measure(trial):
        return classification(trial) | {f"test_a_long_name_of_number_{n}": 0.5 for n in range(9)}

    text = str(a_result(["cnn"], measure=measure))

    assert "number_0" not in text
    assert lines_of(text, "dropout") == lines_of(str(a_result(["cnn"])), "dropout")


def test_brackets_in_names_are_text():
    """They are no markup of rich."""
    assert "[bold]net[/bold]" in str(a_result(["[bold]net[/bold]"]))


@pytest.mark.parametrize(
    ("values", "value", "text"),
    [
        ([0.4], 0.4, "0.40"), ([12.3], 12.3, "12.3"), ([2534.2], 2534.2, "2534"), ([0.0312], 0.0312, "0.031"),
        ([3e-7], 3e-7, "3.00e-07"), ([2e9], 2e9, "2.00e+09"), ([], 1.0, "1.00"), ([0.0, NAN], 0.0, "0.00"),
        ([1.0], NAN, "unknown"), ([1.0], float("inf"), "unknown"),
    ],
)  # fmt: skip
def test_numbers_have_the_digits_that_say_something(values, value, text):
    """Three, or two below 1; what is not finite is a word."""
    assert Format.of(values)(value) == text


def test_a_change_without_interval_is_a_number():
    """One seed has no interval."""
    assert Format().change(Estimate(0.5, NAN, NAN, NAN)) == "+0.50"
    assert Format().mean(Estimate(0.5, NAN, NAN, NAN)) == "0.50"


@pytest.mark.parametrize("name", RESULTS)
def test_plain_values_are_those_of_the_rows(name):
    """JSON without NaN; every trial, every row and every recommendation."""
    result = RESULTS[name]()

    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))

    assert len(values["trials"]) == len(result.outcomes)
    assert [item["sentence"] for item in values["recommendations"]] == [r.sentence for r in result.recommendations]
    for row, there in zip(result.rows, values["rows"], strict=True):
        assert (there["model"], there["kind"], there["seeds"]) == (row.model, row.setting.kind, len(row.outcomes))
        assert {name: item["mean"] for name, item in there["metrics"].items()} == {
            name: item.mean for name, item in row.metrics.items()
        }


def test_classification_is_what_the_numbers_say():
    """The helper's numbers, so that the tests above mean what they say."""
    trial = a_result().plan.trials[0]

    assert classification(trial)["test_error"] == 0.2
