"""`dropkit study`: train on real digits with and without dropout."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import groupby
from signal import SIGINT, SIGTERM, signal
from typing import Any

import click

from dropkit.report.console import console
from dropkit.report.progress import Progress
from dropkit.study import ARMS, KINDS, NETWORKS, SEEDS, Digits, Experiment, Recipe, Row, Run, arms, load, rows
from dropkit.study.json_output import to_dict, unfinished_to_dict
from dropkit.study.table import legend, result_table, run_table, title
from dropkit.study.verdicts import next_command, reason_for_no_verdict, sentences

_RECIPE = Recipe()
_DEFAULT = f"Without --kinds and --p it compares {', '.join(str(arm) for arm in ARMS)}."


def _option(name: str, read: Callable[[str], Any], wanted: str, default: object, help: str, metavar: str = "N") -> Any:
    """Make an option that is converted by `read`, with a uniform error message; `Experiment` checks the ranges."""

    def callback(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else read(text)
        except (ValueError, KeyError):
            raise click.UsageError(f"{name} must be {wanted}, got {text!r}", ctx) from None

    return click.option(
        name, type=str, metavar=metavar, default=default, show_default=True, callback=callback, help=help
    )


def _comma_separated(read: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(dict.fromkeys(read(part.strip()) for part in text.split(",")))


def _choice(name: str, names: Sequence[str], default: str | None, help: str) -> Any:
    read = _comma_separated(lambda part: names[names.index(part)])
    wanted = f"one or more of {', '.join(names)}, separated by commas"
    return _option(name, read, wanted, default, help, metavar=",".join(names))


def _number(name: str, default: int, help: str) -> Any:
    return _option(name, int, "a whole number", default, help)


@click.command(epilog=_DEFAULT)
@_choice("--network", list(NETWORKS), ",".join(NETWORKS), "Networks to train.")
@_choice("--kinds", list(KINDS), None, "Kinds of dropout to compare with none.")
@_option("--p", _comma_separated(float), "numbers separated by commas", None, "Dropout rates to try.", "0.1,0.5")
@_number("--seeds", SEEDS, "Random seeds per setting, at least 2.")
@_number("--epochs", _RECIPE.epochs, "Training epochs.")
@_number("--digits", _RECIPE.digits, "Training digits; the others are the test set.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every run; errors are fractions.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress bar.")
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

    There is no verdict if the baseline is near chance or a run failed. Ctrl-C prints the runs that are finished.
    """
    recipe = Recipe(digits=digits, epochs=epochs)
    all_digits = _load()
    try:
        experiment = Experiment(all_digits, network, arms(kinds, p), seeds, recipe)
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None
    runs: list[Run] = []
    try:
        with _sigterm_raises():
            _train(experiment, quiet, runs)
    except (KeyboardInterrupt, _Terminated) as stop:
        is_interrupt = isinstance(stop, KeyboardInterrupt)
        _print_unfinished(runs, experiment, "interrupted" if is_interrupt else "terminated", as_json)
        # The exit code that a shell reports for a process ended by a signal.
        raise click.exceptions.Exit(128 + (SIGINT if is_interrupt else SIGTERM)) from None
    except Exception as error:
        _print_unfinished(runs, experiment, f"{type(error).__name__}: {error}", as_json)
        raise
    results = rows(runs)
    if as_json:
        click.echo(json.dumps(to_dict(results, experiment), indent=2))
    else:
        _print(results, experiment)


class _Terminated(BaseException):
    """The process received SIGTERM."""


@contextmanager
def _sigterm_raises() -> Generator[None]:
    """Raise `_Terminated` at SIGTERM, as Python raises `KeyboardInterrupt` at SIGINT."""

    def stop(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can set signal handlers.
        yield
        return
    before = signal(SIGTERM, stop)
    try:
        yield
    finally:
        signal(SIGTERM, before)


def _print_unfinished(runs: list[Run], experiment: Experiment, reason: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(unfinished_to_dict(runs, experiment, reason), indent=2))
        return
    screen = console(highlight=False)
    screen.print(f"{len(runs)} of {len(experiment)} runs finished ({reason}); there is no verdict.", style="bold")
    if runs:
        screen.print(run_table(runs))


def _load() -> Digits:
    try:
        return load()
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None


def _train(experiment: Experiment, quiet: bool, runs: list[Run]) -> None:
    """Append each run to `runs` as it finishes, so that the caller has them if training is interrupted."""
    with Progress("training", len(experiment), visible=False if quiet else None) as progress:
        for run in experiment.runs():
            runs.append(run)
            progress.advance(description=f"{run.network} {run.arm}")


def _print(results: list[Row], experiment: Experiment) -> None:
    screen = console(highlight=False)
    summary: list[str] = []
    for name, group in groupby(results, key=lambda row: row.network):
        network_rows = list(group)
        reason = reason_for_no_verdict(network_rows, experiment)
        screen.print(title(name, experiment), style="bold")
        screen.print(result_table(network_rows, with_verdicts=reason is None))
        screen.print()
        summary += sentences(network_rows) if reason is None else [reason]
    screen.print(legend(experiment), style="dim")
    for line in ("", *summary, next_command(results, experiment)):
        screen.print(line)
