"""Verdicts: what the paired intervals say, in plain sentences, and which command to try next."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from dropkit.study.estimates import Estimate, Row
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


def sentences(rows: Sequence[Row]) -> list[str]:
    """What the rows of one network show: one sentence for each verdict that fell."""
    arms: dict[Verdict, list[str]] = {}
    for row in rows:
        if row.change is not None:
            arms.setdefault(verdict(row.change), []).append(str(row.arm))
    return [f"{rows[0].network}, {', '.join(arms[fell])}: {fell.value}." for fell in Verdict if fell in arms]


def try_next(rows: Sequence[Row], plan: Plan) -> str:
    """What these rows leave open, and on a line of its own the command that asks it."""
    open_ = next((row for row in rows if row.change is not None and verdict(row.change) is Verdict.SAME), None)
    command = f"dropkit study --network {(open_ or rows[0]).network}"
    more = 4 * plan.recipe.digits
    if open_ is None and more < len(plan.digits):
        return f"Try next, to see what four times the digits change:\n{command} --digits {more}"
    return f"Try next, for narrower intervals:\n{command} --seeds {2 * plan.seeds}"
