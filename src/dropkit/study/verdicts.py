"""Say in sentences what the paired intervals show, and suggest the next command."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import sqrt

from dropkit.study.arms import BASELINE
from dropkit.study.experiment import Experiment
from dropkit.study.intervals import Estimate, Row


class Verdict(Enum):
    """Where the interval of a change lies, and what follows for the test error."""

    LOWER = "the interval of the change lies below 0: dropout lowers the test error"
    SAME = "the interval of the change contains 0: these seeds show no effect"
    HIGHER = "the interval of the change lies above 0: dropout raises the test error"


def verdict(change: Estimate) -> Verdict:
    """Return on which side of 0 the whole interval lies, if it does."""
    if change.high < 0:
        return Verdict.LOWER
    return Verdict.HIGHER if change.low > 0 else Verdict.SAME


def reason_for_no_verdict(rows: Sequence[Row], experiment: Experiment) -> str | None:
    """Return a sentence that says why the rows of one network show nothing, whatever their intervals, or None."""
    failed = [run for row in rows for run in row.runs if run.failed]
    if failed:
        count = sum(len(row.runs) for row in rows)
        return (
            f"{rows[0].network}: no verdict, since {len(failed)} of {count} runs failed (their outputs are not finite)."
        )
    worst = max((run.test_error for row in rows if row.arm == BASELINE for run in row.runs), default=0.0)
    classes, count = experiment.num_classes, experiment.num_test_digits
    if worst < (bound := chance_error_bound(classes, count)):
        return None
    return (
        f"{rows[0].network}: no verdict, since the baseline is near chance. Its test error is {worst:.1%}; a network "
        f"that guesses among {classes} classes may have {bound:.1%} on {count} digits."
    )


def chance_error_bound(classes: int, count: int) -> float:
    """Return the test error of guessing, less two standard errors, on `count` items of equally frequent classes.

    A network that has learnt nothing may predict the same for all items of a class, so that its error varies like that
    of `classes` independent guesses, and with the sample of items in addition.
    """
    chance = 1 - 1 / classes
    return chance - 2 * sqrt(chance * (1 - chance) * (1 / classes + 1 / count))


def sentences(rows: Sequence[Row]) -> list[str]:
    """Return one sentence per verdict on the rows of one network; each names the arms that it applies to."""
    arms: dict[Verdict, list[str]] = {}
    for row in rows:
        if row.change is not None:
            arms.setdefault(verdict(row.change), []).append(str(row.arm))
    return [f"{rows[0].network}, {', '.join(arms[item])}: {item.value}." for item in Verdict if item in arms]


def next_command(rows: Sequence[Row], experiment: Experiment) -> str:
    """Return what these rows leave open, and on a line of its own the command that would answer it."""
    recipe = experiment.recipe
    without_verdict = next((row.network for row in rows if reason_for_no_verdict([row], experiment)), None)
    if without_verdict is not None:
        digits, epochs = max(500, recipe.digits), max(30, 2 * recipe.epochs)
        command = f"dropkit study --network {without_verdict} --digits {digits} --epochs {epochs}"
        return f"Try next, for networks that learn:\n{command}"
    undecided = next((row for row in rows if row.change is not None and verdict(row.change) is Verdict.SAME), None)
    command = f"dropkit study --network {(undecided or rows[0]).network}"
    more = 4 * recipe.digits
    if undecided is None and more < len(experiment.digits):
        return f"Try next, to see the effect of four times the training digits:\n{command} --digits {more}"
    return f"Try next, for narrower intervals:\n{command} --seeds {2 * experiment.seeds}"
