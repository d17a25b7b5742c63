"""Tables of an experiment for people: one network, one line for each arm."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from dropkit.report.units import counted
from dropkit.study.arms import BASELINE, Arm
from dropkit.study.experiment import Experiment
from dropkit.study.intervals import CONFIDENCE, Estimate, Row
from dropkit.study.training import Run
from dropkit.study.verdicts import Verdict, verdict

_STYLES = {Verdict.LOWER: "green", Verdict.SAME: "dim", Verdict.HIGHER: "red"}


def title(network: str, experiment: Experiment) -> str:
    """Return the heading of a network's table."""
    recipe = experiment.recipe
    digits = f"{recipe.digits} training digits, {experiment.num_test_digits} test digits"
    return f"{network}: {digits}, {counted(recipe.epochs, 'epoch')}"


def result_table(rows: Sequence[Row], with_verdicts: bool = True) -> Table:
    """Make the table of one network, 80 columns wide at most.

    Errors are in percent of digits, changes in percentage points, times in seconds.

    Args:
        rows: the rows of one network.
        with_verdicts: colour the changes by their verdicts.
    """
    table = _table(["kind"], ["p", "train error", "test error", f"change from {BASELINE}", "s/epoch"])
    for row in rows:
        change = Text("")
        if row.change is not None:
            change = Text(_interval(row.change), _STYLES[verdict(row.change)] if with_verdicts else "")
        errors = (_plus_minus(row.train_error), _plus_minus(row.test_error))
        table.add_row(row.arm.kind.name, _p(row.arm), *errors, change, f"{row.seconds_per_epoch:.3f}")
    return table


def run_table(runs: Sequence[Run]) -> Table:
    """Make a table of single runs, for an experiment that ended early."""
    table = _table(["network", "kind"], ["p", "seed", "train error", "test error", "s/epoch"])
    for run in runs:
        errors = (f"{error:.2%}".replace("%", "") for error in (run.train_error, run.test_error))
        table.add_row(
            run.network, run.arm.kind.name, _p(run.arm), str(run.seed), *errors, f"{run.seconds_per_epoch:.3f}"
        )
    return table


def legend(experiment: Experiment) -> str:
    """Say how to read the numbers."""
    return (
        f"Errors in percent, means over {experiment.seeds} seeds with {CONFIDENCE:.0%} intervals. The change is that "
        f"of the test error, paired: for one seed, every kind has the same split, initial weights and batches."
    )


def _table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """Make an empty table with columns of text, then of numbers."""
    table = Table(*texts, box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _p(arm: Arm) -> str:
    return "" if arm == BASELINE else f"{arm.p:g}"


def _plus_minus(error: Estimate) -> str:
    return f"{error.mean:.2%} +- {error.high - error.mean:.2%}".replace("%", "")


def _interval(change: Estimate) -> str:
    return f"{change.mean:+.2%} ({change.low:+.2%}, {change.high:+.2%})".replace("%", "")
