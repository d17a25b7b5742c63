"""dropkit study: what its numbers, tables, sentences and records say of runs whose errors are known."""

import json
from dataclasses import replace
from math import nan, pi, sqrt, tan

import pytest
from rich.console import Console

from dropkit.study import Arm, Estimate, Plan, Recipe, Run, estimate, load, rows
from dropkit.study.kinds import BASELINE, DROPKIT, TORCH
from dropkit.study.record import record
from dropkit.study.table import table
from dropkit.study.verdicts import Verdict, least_error_of_chance, sentences, try_next, verdict, why_no_verdict

DROPOUT = Arm(DROPKIT, 0.5)


@pytest.fixture(scope="module")
def plan():
    return Plan(load(), seeds=2)


def invented(errors, network="cnn"):
    """Runs of these arms with these test errors, one for each seed."""
    return [
        Run(network, arm, seed, 0.0, error, 0.25 + seed)
        for arm, of_seeds in errors.items()
        for seed, error in enumerate(of_seeds)
    ]


def written(renderable):
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


# Estimates


@pytest.mark.parametrize(
    ("values", "mean", "reach"),
    [
        # Student's quantile has a closed form for 1 and 2 degrees of freedom.
        ([1.0, 3.0], 2.0, tan(pi * 0.475)),
        ([1.0, 2.0, 3.0], 2.0, 0.95 * sqrt(2 / (1 - 0.95**2)) / sqrt(3)),
        ([0.25, 0.25, 0.25, 0.25], 0.25, 0.0),
    ],
)
def test_an_estimate_is_the_mean_with_students_interval(values, mean, reach):
    """Mean and interval equal those computed by hand."""
    got = estimate(values)

    assert (got.mean, got.low, got.high) == pytest.approx((mean, mean - reach, mean + reach))


def test_changes_are_paired_by_seed():
    """A change that is the same for every seed is sure, however much the seeds differ."""
    runs = invented({BASELINE: [0.1, 0.3, 0.6], DROPOUT: [0.05, 0.25, 0.55]})

    without, dropped = rows([*runs[:3], *reversed(runs[3:])])

    assert without.change is None
    assert (dropped.change.low, dropped.change.high) == pytest.approx((-0.05, -0.05))
    assert dropped.test_error.high > without.test_error.mean


def test_rows_keep_networks_apart():
    """The baseline of a row is that of its own network; the time is the median run's."""
    runs = [
        *invented({BASELINE: [0.1, 0.1, 0.1], DROPOUT: [0.2, 0.2, 0.2]}),
        *invented({BASELINE: [0.5, 0.5, 0.5], DROPOUT: [0.4, 0.4, 0.4]}, "mlp"),
    ]

    found = rows(runs)

    assert [(row.network, row.arm) for row in found] == [(n, a) for n in ("cnn", "mlp") for a in (BASELINE, DROPOUT)]
    assert [row.change.mean for row in found if row.change] == pytest.approx([0.1, -0.1])
    assert [row.seconds_per_epoch for row in found] == [1.25] * 4


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
    """An interval that holds or touches 0 shows no effect."""
    assert verdict(Estimate((low + high) / 2, low, high)) is expected


# Output


def test_a_table_fits_80_columns_and_cuts_nothing(plan):
    """With errors and intervals of two digits, every cell is whole."""
    found = rows(invented({BASELINE: [0.10, 0.12], DROPOUT: [0.70, 0.72], Arm(TORCH, 0.25): [0.0, 0.11]}))

    lines = [line.split() for line in written(table(found)).splitlines()]

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


def test_sentences_say_what_the_intervals_say():
    """Each arm but the baseline is named once, with the verdict of its interval."""
    changes = {DROPOUT: [0.1, 0.2, 0.3], Arm(TORCH, 0.5): [0.2, 0.3, 0.4], Arm(TORCH, 0.9): [0.5, 0.6, 0.7]}
    found = rows(invented({BASELINE: [0.2, 0.3, 0.4], **changes}))

    lower, same, higher = sentences(found)

    assert lower == f"cnn, dropkit p=0.5: {Verdict.LOWER.value}."
    assert same == f"cnn, torch p=0.5: {Verdict.SAME.value}."
    assert higher == f"cnn, torch p=0.9: {Verdict.HIGHER.value}."


def test_a_baseline_near_chance_has_no_verdict(plan):
    """Where the network without dropout has learnt nothing, a change that is sure is none, and the reason is said."""
    found = rows(invented({BASELINE: [0.15, 0.88], DROPOUT: [0.10, 0.83]}))

    reason = why_no_verdict(found, plan)

    assert verdict(found[1].change) is Verdict.LOWER
    assert reason.startswith(
        "cnn: no verdict, since the baseline is near chance. Its test error is 88.0%; a network that"
    )
    assert "of 10 classes" in reason
    assert "on 4500 digits" in reason
    assert try_next(found, plan).endswith("dropkit study --network cnn --digits 500 --epochs 60")


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("count", [100, 10**6])
def test_chance_is_bounded_by_classes_and_items(classes, count):
    """Below the error of guessing, by less the more items and classes there are."""
    least = least_error_of_chance(classes, count)

    assert least < 1 - 1 / classes
    assert least < least_error_of_chance(classes, 10 * count)
    assert least < least_error_of_chance(10 * classes, count)


def test_an_arm_near_chance_is_judged(plan):
    """Dropping nearly all raises the error of a network that learns without."""
    assert why_no_verdict(rows(invented({BASELINE: [0.1, 0.12], Arm(TORCH, 0.9): [0.9, 0.9]})), plan) is None


def test_failed_runs_have_no_verdict(plan):
    """A run without finite outputs has no error; its row has no estimate, and JSON no NaN."""
    found = rows(invented({BASELINE: [0.1, 0.1], DROPOUT: [0.05, nan]}))

    held = json.dumps(record(found, plan), allow_nan=False)

    assert why_no_verdict(found, plan) == "cnn: no verdict, since 1 of 4 runs failed (their outputs are not finite)."
    assert json.loads(held)["rows"][1]["change"] == {"mean": None, "low": None, "high": None}
    assert json.loads(held)["no_verdict"] == {"cnn": why_no_verdict(found, plan)}


@pytest.mark.parametrize(
    ("errors", "digits", "command"),
    [
        ([0.1, 0.1], 500, "dropkit study --network cnn --digits 2000"),
        ([0.1, 0.1], 1250, "dropkit study --network cnn --seeds 4"),
        ([0.0, 0.9], 500, "dropkit study --network cnn --seeds 4"),
    ],
)
def test_the_next_command_asks_what_is_open(plan, errors, digits, command):
    """More seeds where an interval holds 0, more digits where none does and there are as many."""
    found = rows(invented({BASELINE: [0.2, 0.2], DROPOUT: errors}))

    assert try_next(found, replace(plan, recipe=Recipe(digits=digits))).splitlines()[1] == command


def test_the_record_holds_every_run(plan):
    """A program finds in JSON all that the table shows, and the runs that it was computed from."""
    runs = invented({BASELINE: [0.1, 0.3], DROPOUT: [0.1, 0.2]})

    held = json.loads(json.dumps(record(rows(runs), plan)))

    assert [row["kind"] for row in held["rows"]] == ["none", "dropkit"]
    assert held["rows"][0]["change"] is None
    assert held["rows"][1]["change"]["mean"] == pytest.approx(-0.05)
    assert [run["test_error"] for row in held["rows"] for run in row["runs"]] == [run.test_error for run in runs]
    assert (held["recipe"]["digits"], held["test_digits"], held["seeds"]) == (500, 4500, 2)
