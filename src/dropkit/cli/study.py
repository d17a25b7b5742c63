"""`dropkit study`: real digits, with and without dropout."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import groupby
from signal import SIGINT, SIGTERM, signal
from typing import Any

import click
from rich.progress import Progress

from dropkit.report.console import console, progress_columns
from dropkit.study import ARMS, KINDS, NETWORKS, SEEDS, Digits, Plan, Recipe, Row, Run, arms, load, rows
from dropkit.study.record import record, unfinished
from dropkit.study.table import legend, run_table, table, title
from dropkit.study.verdicts import sentences, try_next, why_no_verdict

_RECIPE = Recipe()
_DEFAULT = f"Without --kinds and --p it compares {', '.join(str(arm) for arm in ARMS)}."


def _option(name: str, read: Callable[[str], Any], wanted: str, default: object, help: str, metavar: str = "N") -> Any:
    """An option that `read` reads, or that says what it must be; ranges are the plan's to check."""

    def callback(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else read(text)
        except (ValueError, KeyError):
            raise click.UsageError(f"{name} must be {wanted}, got {text!r}", ctx) from None

    return click.option(
        name, type=str, metavar=metavar, default=default, show_default=True, callback=callback, help=help
    )


def _each(read: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(dict.fromkeys(read(part.strip()) for part in text.split(",")))


def _choice(name: str, names: Sequence[str], default: str | None, help: str) -> Any:
    read = _each(lambda part: names[names.index(part)])
    wanted = f"one or more of {', '.join(names)}, with commas between them"
    return _option(name, read, wanted, default, help, metavar=",".join(names))


def _number(name: str, default: int, help: str) -> Any:
    return _option(name, int, "a whole number", default, help)


@click.command(epilog=_DEFAULT)
@_choice("--network", list(NETWORKS), ",".join(NETWORKS), "What to train.")
@_choice("--kinds", list(KINDS), None, "Kinds of dropout to compare with none.")
@_option("--p", _each(float), "numbers with commas between them", None, "Fractions to drop, for each kind.", "0.1,0.5")
@_number("--seeds", SEEDS, "How often to train each; an interval needs 2.")
@_number("--epochs", _RECIPE.epochs, "Visits of every training digit.")
@_number("--digits", _RECIPE.digits, "Digits to train on; the others test.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every run; errors are fractions.")
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def command(
    network: tuple[str, ...],
    kinds: tuple[str, ...] | None,
    p: tuple[float, ...] | None,
    seeds: int,
    epochs: int,
    digits: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train small networks on real digits with and without dropout, and compare their test errors in pairs.

    There is no verdict where the baseline is near chance or a run failed. Ctrl-C shows the runs that are finished.
    """
    recipe = Recipe(digits=digits, epochs=epochs)
    everything = _load()
    try:
        plan = Plan(everything, network, arms(kinds, p), seeds, recipe)
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None
    runs: list[Run] = []
    try:
        with _terminated():
            _train(plan, quiet, runs)
    except (KeyboardInterrupt, _Terminated) as stop:
        _print_unfinished(runs, plan, "interrupted" if isinstance(stop, KeyboardInterrupt) else "terminated", as_json)
        # As a shell reports what a signal has ended.
        raise click.exceptions.Exit(128 + (SIGINT if isinstance(stop, KeyboardInterrupt) else SIGTERM)) from None
    except Exception as error:
        _print_unfinished(runs, plan, f"{type(error).__name__}: {error}", as_json)
        raise
    results = rows(runs)
    if as_json:
        click.echo(json.dumps(record(results, plan), indent=2))
    else:
        _print(results, plan)


class _Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def _terminated() -> Generator[None]:
    """Raise `_Terminated` at SIGTERM, as Python raises `KeyboardInterrupt` at SIGINT."""

    def stop(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        # No other thread may set handlers.
        yield
        return
    before = signal(SIGTERM, stop)
    try:
        yield
    finally:
        signal(SIGTERM, before)


def _print_unfinished(runs: list[Run], plan: Plan, reason: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(unfinished(runs, plan, reason), indent=2))
        return
    screen = console(highlight=False)
    screen.print(f"{len(runs)} of {len(plan)} runs finished ({reason}); they show no verdict.", style="bold")
    if runs:
        screen.print(run_table(runs))


def _load() -> Digits:
    try:
        return load()
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None


def _train(plan: Plan, quiet: bool, runs: list[Run]) -> None:
    """Put each run into `runs` once it is finished, with a bar on stderr meanwhile, if that is a terminal."""
    screen = console(stderr=True)
    hidden = quiet or not screen.is_terminal
    with Progress(*progress_columns(), console=screen, transient=True, disable=hidden) as progress:
        task = progress.add_task("training", total=len(plan))
        for run in plan.runs():
            runs.append(run)
            progress.update(task, advance=1, description=f"{run.network} {run.arm}")


def _print(results: list[Row], plan: Plan) -> None:
    screen = console(highlight=False)
    said: list[str] = []
    for name, group in groupby(results, key=lambda row: row.network):
        shown = list(group)
        reason = why_no_verdict(shown, plan)
        screen.print(title(name, plan), style="bold")
        screen.print(table(shown, judged=reason is None))
        screen.print()
        said += sentences(shown) if reason is None else [reason]
    screen.print(legend(plan), style="dim")
    for line in ("", *said, try_next(results, plan)):
        screen.print(line)
