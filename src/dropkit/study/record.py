"""The record of a study, for programs: plain values that JSON can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

import dropkit
from dropkit.study.estimates import CONFIDENCE, Row
from dropkit.study.plan import Plan


def record(rows: Sequence[Row], plan: Plan) -> dict[str, Any]:
    """What was done, with which versions, and every run of every row; errors are fractions, times are seconds."""
    return {
        "dropkit": dropkit.__version__,
        "torch": torch.__version__,
        "recipe": asdict(plan.recipe),
        "test_digits": len(plan.digits) - plan.recipe.digits,
        "seeds": plan.seeds,
        "confidence": CONFIDENCE,
        "rows": [_row(row) for row in rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "network": row.network,
        "kind": row.arm.kind.name,
        "p": row.arm.p,
        "train_error": asdict(row.train_error),
        "test_error": asdict(row.test_error),
        "change": None if row.change is None else asdict(row.change),
        "seconds_per_epoch": row.seconds_per_epoch,
        "runs": [
            {
                "seed": run.seed,
                "train_error": run.train_error,
                "test_error": run.test_error,
                "seconds_per_epoch": run.seconds_per_epoch,
            }
            for run in row.runs
        ],
    }
