"""What `dropkit study` does: plan and run a study, print it and write its reports."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import click

from dropkit import files
from dropkit.arguments import positive_int
from dropkit.cli.actions.model_loading import user_code
from dropkit.cli.actions.sharing import share
from dropkit.cli.actions.study_inputs import load_data, load_models, recipe_fields
from dropkit.cli.options import FAILED, Failed, wants_color
from dropkit.cli.signals import Terminated, sigterm_raises
from dropkit.cli.study_options import DIGITS_SEEDS, MAX_WORKERS, STUDY_FOLDER, usage_errors
from dropkit.extras import must_be_installed
from dropkit.studies import trackers
from dropkit.studies.kinds import KINDS
from dropkit.studies.plan import Plan, provenance
from dropkit.studies.reports import write_reports
from dropkit.studies.result import StudyResult, load
from dropkit.studies.study import prepare, run_plan
from dropkit.studies.trial import Outcome
from dropkit.studies.trial_log import FolderInUse, OtherStudy
from dropkit.studies.workers import Runner, Train, run
from dropkit.study_defaults import RATES, SEEDS

# Exit codes: every question is answered; trials failed, or nothing can be concluded about a model.
ANSWERED, NOT_ANSWERED = 0, 1


def study(
    command: str, as_json: bool, quiet: bool, folder: str | None, resume: bool, options: Mapping[str, Any]
) -> int:
    """Run a study, print it and write its reports; return the exit code."""
    must_be_installed("dropkit study", "study", "jinja2", "loky", "matplotlib", "scipy")
    plan, train = _prepare(options)
    plan = replace(plan, provenance=provenance(command))
    workers, where = number_of_workers(options), numbered_folder(STUDY_FOLDER, folder, resume)
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
    return DIGITS_SEEDS if options["target"] == "digits" else SEEDS


def number_of_workers(options: Mapping[str, Any]) -> int:
    """Return --workers, or what suits the machine and --device."""
    if options["workers"] is not None:
        with usage_errors():
            return positive_int("workers", options["workers"])
    is_cpu = options["device"] in (None, "cpu")
    return min(MAX_WORKERS, len(os.sched_getaffinity(0))) if is_cpu else 1


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
    if not as_json:
        click.echo(f"\n{paths[0]}; beside it {', '.join(path.name for path in paths[1:])}")


def _trackers(options: Mapping[str, Any]) -> Callable[[Outcome], None] | None:
    """Where outcomes are logged besides the folder."""
    found = [
        make(options[name])
        for name, make in (("tensorboard", trackers.tensorboard), ("mlflow", trackers.mlflow))
        if options[name] is not None
    ]

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
