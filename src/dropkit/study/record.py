"""The record of a study, for programs: plain values that JSON can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

import torch

import dropkit
from dropkit.study.intervals import CONFIDENCE, Estimate, Row
from dropkit.study.plan import Plan
from dropkit.study.training import Run
from dropkit.study.verdicts import why_no_verdict


def record(rows: Sequence[Row], plan: Plan) -> dict[str, Any]:
    """What was done, with which versions, and every run of every row; errors are fractions, times are seconds."""
    return {
        "dropkit": dropkit.__version__,
        "torch": torch.__version__,
        "recipe": asdict(plan.recipe),
        "test_digits": len(plan.digits) - plan.recipe.digits,
        "seeds": plan.seeds,
        "confidence": CONFIDENCE,
        "no_verdict": {name: reason for name in plan.networks if (reason := why_no_verdict(of(name, rows), plan))},
        "rows": [_row(row) for row in rows],
    }


def unfinished(runs: Sequence[Run], plan: Plan, reason: str) -> dict[str, Any]:
    """A study that ended before its last run: the runs that were finished, and nothing that they might show."""
    return {**record([], plan), "ended_early": reason, "runs": [_run(run) for run in runs]}


def of(network: str, rows: Sequence[Row]) -> list[Row]:
    """The rows of one network."""
    return [row for row in rows if row.network == network]


def _row(row: Row) -> dict[str, Any]:
    return {
        "network": row.network,
        "kind": row.arm.kind.name,
        "p": row.arm.p,
        "train_error": _estimate(row.train_error),
        "test_error": _estimate(row.test_error),
        "change": None if row.change is None else _estimate(row.change),
        "seconds_per_epoch": row.seconds_per_epoch,
        "runs": [_run(run) for run in row.runs],
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "network": run.network,
        "kind": run.arm.kind.name,
        "p": run.arm.p,
        "seed": run.seed,
        "train_error": _number(run.train_error),
        "test_error": _number(run.test_error),
        "seconds_per_epoch": run.seconds_per_epoch,
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {name: _number(value) for name, value in asdict(estimate).items()}


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if isfinite(value) else None
