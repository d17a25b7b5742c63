"""The table of a study, for people: one network, one line for each kind of dropout at each rate."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from dropkit.study.intervals import CONFIDENCE, Estimate, Row
from dropkit.study.kinds import BASELINE, Arm
from dropkit.study.plan import Plan
from dropkit.study.training import Run
from dropkit.study.verdicts import Verdict, verdict

_STYLES = {Verdict.LOWER: "green", Verdict.SAME: "dim", Verdict.HIGHER: "red"}


def title(network: str, plan: Plan) -> str:
    """What the table is about."""
    recipe = plan.recipe
    unseen = len(plan.digits) - recipe.digits
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    return f"{network}: {recipe.digits} digits to train on, {unseen} to test on, {epochs}"


def table(rows: Sequence[Row], judged: bool = True) -> Table:
    """Errors in percent of digits, changes in percentage points, times in seconds; fits 80 columns.

    Without `judged` no colour says which changes are sure.
    """
    drawn = Table("kind", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("p", "train error", "test error", f"change from {BASELINE}", "s/epoch"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        drawn.add_row(*_cells(row, judged))
    return drawn


def run_table(runs: Sequence[Run]) -> Table:
    """Runs one by one, for a study that did not reach its end."""
    drawn = Table("network", "kind", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("p", "seed", "train error", "test error", "s/epoch"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        errors = (f"{error:.2%}".replace("%", "") for error in (run.train_error, run.test_error))
        drawn.add_row(
            run.network, run.arm.kind.name, _p(run.arm), str(run.seed), *errors, f"{run.seconds_per_epoch:.3f}"
        )
    return drawn


def legend(plan: Plan) -> str:
    """How to read the numbers."""
    return (
        f"Errors in percent, means over {plan.seeds} seeds with {CONFIDENCE:.0%} intervals. The change is that of the "
        f"test error, paired: for one seed, every kind has the same split, initial weights and batches."
    )


def _cells(row: Row, judged: bool) -> tuple[str | Text, ...]:
    change = Text("")
    if row.change is not None:
        change = Text(_ends(row.change), _STYLES[verdict(row.change)] if judged else "")
    errors = (_reach(row.train_error), _reach(row.test_error))
    return row.arm.kind.name, _p(row.arm), *errors, change, f"{row.seconds_per_epoch:.3f}"


def _p(arm: Arm) -> str:
    return "" if arm == BASELINE else f"{arm.p:g}"


def _reach(error: Estimate) -> str:
    return f"{error.mean:.2%} +- {error.high - error.mean:.2%}".replace("%", "")


def _ends(change: Estimate) -> str:
    return f"{change.mean:+.2%} ({change.low:+.2%}, {change.high:+.2%})".replace("%", "")
