"""Intervals, tables, verdicts and JSON of `dropkit study`, from runs whose errors are given."""

import json
from dataclasses import replace
from math import nan, pi, sqrt, tan
from sys import float_info

import pytest
from rich.console import Console

from dropkit.study import Arm, Estimate, Experiment, Recipe, Run, estimate, load, rows
from dropkit.study.arms import BASELINE, DROPKIT, TORCH
from dropkit.study.json_output import to_dict
from dropkit.study.table import result_table
from dropkit.study.verdicts import Verdict, chance_error_bound, next_command, reason_for_no_verdict, sentences, verdict

DROPOUT = Arm(DROPKIT, 0.5)


@pytest.fixture(scope="module")
def experiment():
    return Experiment(load(), seeds=2)


def runs_with(errors, network="cnn"):
    """Make runs of these arms with these test errors, one for each seed."""
    return [
        Run(network, arm, seed, 0.0, error, 0.25 + seed)
        for arm, of_seeds in errors.items()
        for seed, error in enumerate(of_seeds)
    ]


def printed(renderable):
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


# Estimates


@pytest.mark.parametrize(
    ("values", "mean", "half_width"),
    [
        # Student's quantile has a closed form for 1 and 2 degrees of freedom.
        ([1.0, 3.0], 2.0, tan(pi * 0.475)),
        ([1.0, 2.0, 3.0], 2.0, 0.95 * sqrt(2 / (1 - 0.95**2)) / sqrt(3)),
        ([0.25, 0.25, 0.25, 0.25], 0.25, 0.0),
    ],
)
def test_an_estimate_is_the_mean_with_students_interval(values, mean, half_width):
    """Mean and interval equal those computed by hand."""
    result = estimate(values)

    # Near its pole, tan magnifies the rounding of its argument 19 times; all else is rounded a few times.
    bound = 32 * float_info.epsilon * (mean + half_width)
    assert result.mean == mean
    assert abs(result.low - (mean - half_width)) <= bound
    assert abs(result.high - (mean + half_width)) <= bound


def test_changes_are_paired_by_seed():
    """A change that is the same for every seed has an interval of width 0, however much the seeds differ."""
    runs = runs_with({BASELINE: [0.125, 0.25, 0.5], DROPOUT: [0.0625, 0.1875, 0.4375]})

    without, dropped = rows([*runs[:3], *reversed(runs[3:])])

    assert without.change is None
    assert (dropped.change.low, dropped.change.high) == (-0.0625, -0.0625)
    assert dropped.test_error.high > without.test_error.mean


def test_rows_keep_networks_apart():
    """The baseline of a row is that of its own network; the time is the median run's."""
    runs = [
        *runs_with({BASELINE: [0.125] * 3, DROPOUT: [0.25] * 3}),
        *runs_with({BASELINE: [0.5] * 3, DROPOUT: [0.375] * 3}, "mlp"),
    ]

    results = rows(runs)

    assert [(row.network, row.arm) for row in results] == [(n, a) for n in ("cnn", "mlp") for a in (BASELINE, DROPOUT)]
    assert [row.change.mean for row in results if row.change] == [0.125, -0.125]
    assert [row.seconds_per_epoch for row in results] == [1.25] * 4


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-2, -1, Verdict.LOWER),
        (-2, 1, Verdict.SAME),
        (-1, 0, Verdict.SAME),
        (0, 1, Verdict.SAME),
        (1, 2, Verdict.HIGHER),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(low, high, expected):
    """An interval that contains or touches 0 shows no effect."""
    assert verdict(Estimate((low + high) / 2, low, high)) is expected


# Output


def test_a_table_fits_80_columns_without_truncation(experiment):
    """With errors and intervals of two digits, every cell is whole."""
    results = rows(runs_with({BASELINE: [0.10, 0.12], DROPOUT: [0.70, 0.72], Arm(TORCH, 0.25): [0.0, 0.11]}))

    lines = [line.split() for line in printed(result_table(results)).splitlines()]

    reach = f"{100 * 0.01 * tan(pi * 0.475):.2f}"
    assert lines[2] == ["none", "0.00", "+-", "0.00", "11.00", "+-", reach, "0.250"]
    assert lines[3] == [
        "dropkit",
        "0.5",
        "0.00",
        "+-",
        "0.00",
        "71.00",
        "+-",
        reach,
        "+60.00",
        "(+60.00,",
        "+60.00)",
        "0.250",
    ]
    assert lines[4][:2] == ["torch", "0.25"]


def test_sentences_state_the_verdicts():
    """Each arm but the baseline is named once, with the verdict of its interval."""
    changes = {DROPOUT: [0.1, 0.2, 0.3], Arm(TORCH, 0.5): [0.2, 0.3, 0.4], Arm(TORCH, 0.9): [0.5, 0.6, 0.7]}
    results = rows(runs_with({BASELINE: [0.2, 0.3, 0.4], **changes}))

    lower, same, higher = sentences(results)

    assert lower == f"cnn, dropkit p=0.5: {Verdict.LOWER.value}."
    assert same == f"cnn, torch p=0.5: {Verdict.SAME.value}."
    assert higher == f"cnn, torch p=0.9: {Verdict.HIGHER.value}."


def test_a_baseline_near_chance_has_no_verdict(experiment):
    """If the network without dropout has learnt nothing, there is no verdict, and a sentence says why."""
    results = rows(runs_with({BASELINE: [0.15, 0.88], DROPOUT: [0.10, 0.83]}))

    reason = reason_for_no_verdict(results, experiment)

    assert verdict(results[1].change) is Verdict.LOWER
    assert reason.startswith(
        "cnn: no verdict, since the baseline is near chance. Its test error is 88.0%; a network that"
    )
    assert "among 10 classes" in reason
    assert "on 4500 digits" in reason
    assert next_command(results, experiment).endswith("dropkit study --network cnn --digits 500 --epochs 60")


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("count", [100, 10**6])
def test_the_bound_of_chance_rises_with_classes_and_items(classes, count):
    """It lies below the error of guessing, and comes closer with more items and classes."""
    bound = chance_error_bound(classes, count)

    assert bound < 1 - 1 / classes
    assert bound < chance_error_bound(classes, 10 * count)
    assert bound < chance_error_bound(10 * classes, count)


def test_an_arm_near_chance_has_a_verdict(experiment):
    """Only the baseline must learn: a high rate may raise the error to that of guessing."""
    results = rows(runs_with({BASELINE: [0.1, 0.12], Arm(TORCH, 0.9): [0.9, 0.9]}))

    assert reason_for_no_verdict(results, experiment) is None


def test_failed_runs_have_no_verdict(experiment):
    """A run with outputs that are not finite has no error; its row has no estimate, and JSON has no NaN."""
    results = rows(runs_with({BASELINE: [0.1, 0.1], DROPOUT: [0.05, nan]}))

    output = json.loads(json.dumps(to_dict(results, experiment), allow_nan=False))

    reason = "cnn: no verdict, since 1 of 4 runs failed (their outputs are not finite)."
    assert reason_for_no_verdict(results, experiment) == reason
    assert output["rows"][1]["change"] == {"mean": None, "low": None, "high": None}
    assert output["no_verdict"] == {"cnn": reason}


@pytest.mark.parametrize(
    ("errors", "digits", "command"),
    [
        ([0.1, 0.1], 500, "dropkit study --network cnn --digits 2000"),
        ([0.1, 0.1], 1250, "dropkit study --network cnn --seeds 4"),
        ([0.0, 0.9], 500, "dropkit study --network cnn --seeds 4"),
    ],
)
def test_the_next_command_depends_on_what_is_open(experiment, errors, digits, command):
    """It takes more seeds if an interval contains 0, else more digits if there are enough."""
    results = rows(runs_with({BASELINE: [0.2, 0.2], DROPOUT: errors}))

    assert next_command(results, replace(experiment, recipe=Recipe(digits=digits))).splitlines()[1] == command


def test_the_json_output_has_every_run(experiment):
    """JSON has all that the table shows, and the runs that it was computed from."""
    runs = runs_with({BASELINE: [0.25, 0.5], DROPOUT: [0.25, 0.375]})

    output = json.loads(json.dumps(to_dict(rows(runs), experiment)))

    assert [row["kind"] for row in output["rows"]] == ["none", "dropkit"]
    assert output["rows"][0]["change"] is None
    assert output["rows"][1]["change"]["mean"] == -0.0625
    assert [run["test_error"] for row in output["rows"] for run in row["runs"]] == [run.test_error for run in runs]
    assert (output["recipe"]["digits"], output["test_digits"], output["seeds"]) == (500, 4500, 2)
