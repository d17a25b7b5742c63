"""The result of an experiment as plain values that JSON can hold; errors are fractions, times are seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

import torch

import dropkit
from dropkit.study.experiment import Experiment
from dropkit.study.intervals import CONFIDENCE, Estimate, Row
from dropkit.study.training import Run
from dropkit.study.verdicts import reason_for_no_verdict


def to_dict(rows: Sequence[Row], experiment: Experiment) -> dict[str, Any]:
    """Return the settings, the versions, and all rows with all their runs."""
    by_network = {name: [row for row in rows if row.network == name] for name in experiment.networks}
    reasons = {name: reason_for_no_verdict(group, experiment) for name, group in by_network.items()}
    return {
        "dropkit": dropkit.__version__,
        "torch": torch.__version__,
        "recipe": asdict(experiment.recipe),
        "test_digits": experiment.num_test_digits,
        "seeds": experiment.seeds,
        "confidence": CONFIDENCE,
        "no_verdict": {name: reason for name, reason in reasons.items() if reason},
        "rows": [_row(row) for row in rows],
    }


def unfinished_to_dict(runs: Sequence[Run], experiment: Experiment, reason: str) -> dict[str, Any]:
    """Return the finished runs of an experiment that ended early, without rows."""
    return {**to_dict([], experiment), "ended_early": reason, "runs": [_run(run) for run in runs]}


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
