"""`dropkit study`: train models with and without dropout, and say which kind, where and at what rate."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import click

from dropkit import files
from dropkit.arguments import positive_int
from dropkit.cli.model_loading import Failed, user_code
from dropkit.cli.options import FAILED, not_empty, wants_color
from dropkit.cli.sharing import share, storage_options
from dropkit.cli.signals import Terminated, sigterm_raises
from dropkit.cli.study_options import (
    Command,
    comma_separated,
    load_data,
    load_models,
    model_options,
    option,
    recipe_fields,
    training_options,
    typed,
    usage_errors,
)
from dropkit.studies import trackers
from dropkit.studies.kinds import KINDS
from dropkit.studies.plan import Plan, provenance
from dropkit.studies.reports import write_reports
from dropkit.studies.result import StudyResult, load
from dropkit.studies.study import RATES, SEEDS, prepare, run_plan
from dropkit.studies.trial import Outcome
from dropkit.studies.trial_log import FolderInUse, OtherStudy
from dropkit.studies.workers import Runner, Train, run

# Exit codes: every question is answered; trials failed, or nothing can be concluded about a model.
ANSWERED, NOT_ANSWERED = 0, 1
_DEFAULT_FOLDER = "dropkit-study"
# Each worker takes about 550 MB with torch and the digits.
_MAX_WORKERS = 8
# As many as fit into a minute and a half on two cores.
_DIGITS_SEEDS = 6
_COMPARED, _RUN, _OUTPUT = "What is compared", "Where it runs", "Output"


@click.command("study", cls=Command)
@model_options
@option(
    _COMPARED,
    "--kinds",
    metavar="NAMES",
    callback=comma_separated(),
    help=f"Separated by commas: {', '.join(KINDS)}, or layers of dropkit.nn. [default: dropout; digits: all of these]",
)
@option(
    _COMPARED,
    "--p",
    metavar="RATES",
    callback=comma_separated(float),
    help=f"Separated by commas; no dropout is always compared. [default: {','.join(map(str, RATES))}]",
)
@option(
    _COMPARED,
    "--sites",
    metavar="all|each|NAMES",
    callback=comma_separated(),
    help="Where: at all sites; each alone and each left out; or at modules of these names. [default: all]",
)
@option(
    _COMPARED,
    "--seeds",
    type=int,
    metavar="N",
    help=f"Trials of each setting. [default: {SEEDS}; digits: {_DIGITS_SEEDS}]",
)
@option(
    _COMPARED,
    "--metric",
    metavar="NAME",
    help="error, nll, ece, rmse, mae, or a class of torchmetrics. [default: error of classes, rmse of values]",
)
@training_options
@option(
    _RUN,
    "--workers",
    type=int,
    metavar="N",
    help="Processes; results do not depend on their number. "
    f"[default: one per core, at most {_MAX_WORKERS}; 1 with another device than the CPU]",
)
@option(
    _RUN,
    "--folder",
    metavar="FOLDER",
    callback=not_empty,
    help="Keeps each trial as it finishes, and the reports. "
    f"[default: {_DEFAULT_FOLDER}, or {_DEFAULT_FOLDER}-2 and so on]",
)
@option(
    _RUN,
    "--resume",
    is_flag=True,
    help="Continue the study in the folder, by default in the last one: finished trials are not run again.",
)
@storage_options(_RUN)
@option(_RUN, "--tensorboard", metavar="FOLDER", help="Also log each trial for TensorBoard.")
@option(_RUN, "--mlflow", metavar="URI", help="Also log each trial to this MLflow tracking server or folder.")
@option(_OUTPUT, "--json", "as_json", is_flag=True, help="Print one JSON object; fractions are in [0, 1].")
@option(_OUTPUT, "--quiet", "-q", is_flag=True, help="Show no progress bar.")
@click.pass_context
def command(
    context: click.Context, as_json: bool, quiet: bool, folder: str | None, resume: bool, **options: Any
) -> None:
    """Train models with and without dropout, and say which kind, where and at what rate.

    MODEL is FILE.py:NAME (or package.module:NAME), a function without arguments that makes a model, or one of cnn
    (square images), mlp (numbers, images) and gru (text); by default all of these that fit the data. All settings
    are trained in pairs: with one seed they share split, initial weights and order of batches. The setting is
    chosen on validation examples, what it changes is reported on test examples.

    Exit code: 0 every model has an answer, 1 trials failed or nothing can be concluded about a model, 2 error, 130
    Ctrl-C, 143 SIGTERM. Finished trials are kept in any case; the same command with --resume continues.
    """
    context.exit(_study(typed(context), as_json, quiet, folder, resume, options))


def _study(
    command: str, as_json: bool, quiet: bool, folder: str | None, resume: bool, options: Mapping[str, Any]
) -> int:
    """Run a study, print it and write its reports; return the exit code."""
    _check_packages()
    plan, train = _prepare(options)
    plan = replace(plan, provenance=provenance(command))
    workers, where = number_of_workers(options), numbered_folder(_DEFAULT_FOLDER, folder, resume)
    try:
        with sigterm_raises():
            result = run_plan(
                plan, train, where, resume, workers, False if quiet else None,
                runner=_runner(options, plan, resume), on_outcome=_trackers(options),
            )  # fmt: skip
    except (FolderInUse, OtherStudy) as error:
        raise Failed(f"{error}; on the command line: --folder, --name or --resume") from error
    except KeyboardInterrupt:
        return _ended_early(where, "interrupted", 128 + SIGINT, as_json)
    except Terminated:
        return _ended_early(where, "terminated", 128 + SIGTERM, as_json)
    except OSError as error:
        return _ended_early(where, f"could not write to {where}: {files.reason(error)}", FAILED, as_json)
    _print(result, where, as_json)
    is_answered = all(answer.setting is not None for answer in result.recommendations)
    return ANSWERED if is_answered and not any(row.failures for row in result.rows) else NOT_ANSWERED


def specification_of(options: Mapping[str, Any]) -> tuple[dict[str, Any], Train]:
    """Return what the options study, as plain values, and the function that trains a trial."""
    plan, train = _prepare(options)
    return plan.to_dict(), train


def _runner(options: Mapping[str, Any], plan: Plan, resume: bool) -> Runner:
    return run if options["storage"] is None else share("study", options, plan.to_dict(), resume).run


def _check_packages() -> None:
    """Raise a one-line error for a missing package now, not at the end."""
    missing = [package for package in ("jinja2", "loky", "matplotlib", "scipy") if find_spec(package) is None]
    if missing:
        raise Failed(f'{", ".join(missing)} must be installed: pip install "dropkit[study]"')


def _prepare(options: Mapping[str, Any]) -> tuple[Plan, Train]:
    """Read the data and make the plan, before anything is trained or written."""
    target = options["target"]
    data = load_data(target, options["size"])
    models = load_models(options["targets"], data)
    kinds = options["kinds"] or (tuple(KINDS) if target == "digits" else ("dropout",))
    sites = options["sites"] or ("all",)
    with user_code("the model", "trained"), usage_errors():
        return prepare(
            models, data, kinds=kinds, p=options["p"] or RATES,
            sites=sites[0] if sites[0] in ("all", "each") else sites,
            seeds=_seeds(options), metric=options["metric"], **recipe_fields(options, target, data),
        )  # fmt: skip


def _seeds(options: Mapping[str, Any]) -> int:
    if options["seeds"] is not None:
        return options["seeds"]
    return _DIGITS_SEEDS if options["target"] == "digits" else SEEDS


def number_of_workers(options: Mapping[str, Any]) -> int:
    """Return --workers, or what suits the machine and --device."""
    if options["workers"] is not None:
        with usage_errors():
            return positive_int("workers", options["workers"])
    is_cpu = options["device"] in (None, "cpu")
    return min(_MAX_WORKERS, len(os.sched_getaffinity(0))) if is_cpu else 1


def numbered_folder(default: str, folder: str | None, resume: bool) -> Path:
    """Return the folder that is given, the first free one, or the last one where it is resumed."""
    if folder is not None:
        return Path(folder)
    number = 1
    while _numbered(default, number).exists():
        number += 1
    return _numbered(default, number - 1 if resume and number > 1 else number)


def _numbered(default: str, number: int) -> Path:
    return Path(default if number == 1 else f"{default}-{number}")


def _print(result: StudyResult, folder: Path, as_json: bool) -> None:
    """Print the result before reports are written, which may fail."""
    if as_json:
        click.echo(json.dumps(result.to_dict() | {"folder": str(folder)}, indent=2, allow_nan=False))
    else:
        is_colored = wants_color("auto")
        click.echo(result.table(is_colored), color=is_colored)
    try:
        paths = write_reports(result, folder)
    except OSError as error:
        raise Failed(f"the reports could not be written to {folder}: {files.reason(error)}") from error
    except ImportError as error:
        raise Failed(str(error)) from error
    if not as_json:
        click.echo(f"\n{paths[0]}; beside it {', '.join(path.name for path in paths[1:])}")


def _trackers(options: Mapping[str, Any]) -> Callable[[Outcome], None] | None:
    """Where outcomes are logged besides the folder."""
    try:
        found = [
            make(options[name])
            for name, make in (("tensorboard", trackers.tensorboard), ("mlflow", trackers.mlflow))
            if options[name] is not None
        ]
    except ImportError as error:
        raise Failed(str(error)) from error

    def log(outcome: Outcome) -> None:
        for tracker in found:
            tracker(outcome)

    return log


def resuming(command: str, folder: Path) -> str:
    """Return the command that continues a study."""
    words = shlex.split(command)
    more = [] if any(word.startswith("--folder") for word in words) else ["--folder", str(folder)]
    return shlex.join([*words, *more, *([] if "--resume" in words else ["--resume"])])


def _ended_early(folder: Path, reason: str, code: int, as_json: bool) -> int:
    """Say what is kept, and how to go on; return the exit code."""
    try:
        result = load(folder)
    except (OSError, ValueError):  # it ended before the folder was made
        click.echo(f"{reason}; there are no finished trials", err=True)
        return code
    if as_json:
        values = result.to_dict() | {"folder": str(folder), "ended_early": reason}
        click.echo(json.dumps(values, indent=2, allow_nan=False))
    count = f"{len(result.outcomes)} of {len(result.plan.trials)} trials are finished and kept in {folder}"
    click.echo(f"{reason}; {count}; to continue: {resuming(result.plan.provenance['command'], folder)}", err=True)
    return code
