"""StudyResult: the outcomes of a study, its rows, and what they show."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from dropkit import files
from dropkit.studies.plan import Plan
from dropkit.studies.recommendation import Recommendation, recommend
from dropkit.studies.rows import Row, rows
from dropkit.studies.statistics import CONFIDENCE, Estimate
from dropkit.studies.table import table
from dropkit.studies.trial import Outcome
from dropkit.studies.trial_log import SPECIFICATION, TrialLog, read_outcomes


@dataclass(frozen=True, eq=False)
class StudyResult:
    """The outcomes of a study, and what they show.

    Attributes:
        plan: what was to be trained.
        outcomes: those that there are, in the order of the plan.
    """

    plan: Plan
    outcomes: tuple[Outcome, ...]

    @property
    def is_finished(self) -> bool:
        """Whether every trial of the plan has an outcome."""
        return len(self.outcomes) == len(self.plan.trials)

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The outcomes of failed trials."""
        return tuple(outcome for outcome in self.outcomes if outcome.failed)

    @cached_property
    def rows(self) -> list[Row]:
        """One row for each model and setting."""
        return rows(sorted(self.outcomes, key=self._place))

    @cached_property
    def recommendations(self) -> list[Recommendation]:
        """One for each model."""
        by_model = {name: [row for row in self.rows if row.model == name] for name in self.plan.settings}
        return [recommend(group, self.plan.metric, self.plan.chance) for group in by_model.values() if group]

    def table(self, color: bool = False) -> str:
        """Return a table for each model and the recommendations as text.

        Args:
            color: whether to use escape codes for a terminal.
        """
        return table(self.plan, self.rows, self.recommendations, color)

    def __str__(self) -> str:
        return self.table()

    def save(self, folder: str | Path) -> None:
        """Write the plan and the outcomes, as a study with this `folder` does; `load` reads them.

        Raises:
            FolderInUse: another process runs a study there.
            OtherStudy: the folder holds another study.
            OSError: it cannot be written.
        """
        with TrialLog(folder, self.plan.to_dict(), resume=True) as log:
            for outcome in self.outcomes:
                log.add(outcome)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan, the rows, what they show and all outcomes as plain values that JSON can hold."""
        return {
            **self.plan.to_dict(),
            "is_finished": self.is_finished,
            "confidence": CONFIDENCE,
            "recommendations": [_recommendation(item) for item in self.recommendations],
            "rows": [_row(row) for row in self.rows],
            "trials": [outcome.to_dict() for outcome in self.outcomes],
        }

    def _place(self, outcome: Outcome) -> tuple[int, int, int]:
        trial = outcome.trial
        settings = self.plan.settings[trial.model]
        return (list(self.plan.settings).index(trial.model), settings.index(trial.setting), trial.seed)


def load(folder: str | Path) -> StudyResult:
    """Read the result that a folder holds, finished or not.

    Raises:
        OSError: the folder has no study, or it cannot be read.
        ValueError: its files are damaged.
    """
    path = Path(folder, SPECIFICATION)
    try:
        plan = Plan.from_dict(json.loads(files.read(path)))
    except ValueError as error:
        raise ValueError(f"{path} must describe a study, got {error}") from error
    outcomes = read_outcomes(folder)
    return StudyResult(plan, tuple(outcomes[t.key] for t in plan.trials if t.key in outcomes))


def _row(row: Row) -> dict[str, Any]:
    return {
        "model": row.model,
        **asdict(row.setting),
        "seeds": len(row.outcomes),
        "failures": [outcome.failure for outcome in row.failures],
        "metrics": {name: _estimate(value) for name, value in row.metrics.items()},
        "changes": {name: _estimate(value) for name, value in row.changes.items()},
        "seconds": _number(row.seconds),
    }


def _recommendation(item: Recommendation) -> dict[str, Any]:
    return {**asdict(item), "change": None if item.change is None else _estimate(item.change)}


def _estimate(value: Estimate) -> dict[str, float | None]:
    return {name: _number(number) for name, number in asdict(value).items()}


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if isfinite(value) else None
