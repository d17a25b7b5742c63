"""Verdicts: what the paired intervals say, in plain sentences, and which command to try next."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import sqrt

from dropkit.study.intervals import Estimate, Row
from dropkit.study.kinds import BASELINE
from dropkit.study.plan import Plan


class Verdict(Enum):
    """Where an interval lies, and what that says of the test error."""

    LOWER = "the interval of the change lies below 0: dropout lowers the test error"
    SAME = "the interval of the change holds 0: these seeds show no effect"
    HIGHER = "the interval of the change lies above 0: dropout raises the test error"


def verdict(change: Estimate) -> Verdict:
    """On which side of 0 the whole interval lies, if on one."""
    if change.high < 0:
        return Verdict.LOWER
    return Verdict.HIGHER if change.low > 0 else Verdict.SAME


def why_no_verdict(rows: Sequence[Row], plan: Plan) -> str | None:
    """Why the rows of one network show nothing, whatever their intervals: a sentence; None if they may."""
    failed = [run for row in rows for run in row.runs if run.failed]
    if failed:
        of = sum(len(row.runs) for row in rows)
        return f"{rows[0].network}: no verdict, since {len(failed)} of {of} runs failed (their outputs are not finite)."
    worst = max((run.test_error for row in rows if row.arm == BASELINE for run in row.runs), default=0.0)
    classes, count = int(plan.digits.labels.max()) + 1, len(plan.digits) - plan.recipe.digits
    if worst < (least := least_error_of_chance(classes, count)):
        return None
    return (
        f"{rows[0].network}: no verdict, since the baseline is near chance. Its test error is {worst:.1%}; a network "
        f"that has learnt nothing of {classes} classes may have {least:.1%} on {count} digits."
    )


def least_error_of_chance(classes: int, count: int) -> float:
    """Two standard errors below the error of a network that has learnt nothing, on `count` items of equal classes.

    Such a network may give all items of a class one answer, so that its error scatters as that of `classes` independent
    guesses, and by the draw of the items on top.
    """
    chance = 1 - 1 / classes
    return chance - 2 * sqrt(chance * (1 - chance) * (1 / classes + 1 / count))


def sentences(rows: Sequence[Row]) -> list[str]:
    """What the rows of one network show: one sentence for each verdict that fell."""
    arms: dict[Verdict, list[str]] = {}
    for row in rows:
        if row.change is not None:
            arms.setdefault(verdict(row.change), []).append(str(row.arm))
    return [f"{rows[0].network}, {', '.join(arms[fell])}: {fell.value}." for fell in Verdict if fell in arms]


def try_next(rows: Sequence[Row], plan: Plan) -> str:
    """What these rows leave open, and on a line of its own the command that asks it."""
    unjudged = next((row.network for row in rows if why_no_verdict([row], plan)), None)
    if unjudged is not None:
        digits, epochs = max(500, plan.recipe.digits), max(30, 2 * plan.recipe.epochs)
        learning = f"dropkit study --network {unjudged} --digits {digits} --epochs {epochs}"
        return f"Try next, for networks that learn:\n{learning}"
    open_ = next((row for row in rows if row.change is not None and verdict(row.change) is Verdict.SAME), None)
    command = f"dropkit study --network {(open_ or rows[0]).network}"
    more = 4 * plan.recipe.digits
    if open_ is None and more < len(plan.digits):
        return f"Try next, to see what four times the digits change:\n{command} --digits {more}"
    return f"Try next, for narrower intervals:\n{command} --seeds {2 * plan.seeds}"
