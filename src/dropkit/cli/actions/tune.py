"""What `dropkit tune` does: search for rates, and print what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from signal import SIGINT, SIGTERM
from typing import Any

import click

from dropkit import files
from dropkit.cli.actions.sharing import share, storage_errors
from dropkit.cli.actions.study import ANSWERED, NOT_ANSWERED, number_of_workers, numbered_folder, resuming
from dropkit.cli.actions.study_inputs import load_data, load_models, recipe_fields
from dropkit.cli.options import FAILED, Failed
from dropkit.cli.signals import Terminated, sigterm_raises
from dropkit.cli.study_options import TUNE_FOLDER, usage_errors
from dropkit.studies.plan import provenance
from dropkit.studies.trial_log import FolderInUse, OtherStudy
from dropkit.studies.tuning import TuningPlan, TuningResult, prepare_tuning, run_tuning
from dropkit.studies.workers import Train


def tune(command: str, as_json: bool, quiet: bool, folder: str | None, resume: bool, options: Mapping[str, Any]) -> int:
    """Run a search and print it; return the exit code."""
    tuning = _prepare(options)
    tuning = replace(tuning, plan=replace(tuning.plan, provenance=provenance(command)))
    where = numbered_folder(TUNE_FOLDER, folder, resume)
    try:
        with sigterm_raises():
            result = _run(tuning, options, str(where), resume, False if quiet else None)
    except (FolderInUse, OtherStudy) as error:
        raise Failed(f"{error}; on the command line: --folder, --name or --resume") from error
    except (KeyboardInterrupt, Terminated) as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        again = resuming(command, where)
        reason = "interrupted" if is_interrupt else "terminated"
        click.echo(f"{reason}; finished trials are kept in {where}; to continue: {again}", err=True)
        return 128 + (SIGINT if is_interrupt else SIGTERM)
    except OSError as error:
        click.echo(f"could not write to {where}: {files.reason(error)}", err=True)
        return FAILED
    click.echo(json.dumps(result.to_dict() | {"folder": str(where)}, indent=2) if as_json else str(result))
    return ANSWERED if result.recommendation.setting is not None else NOT_ANSWERED


def specification_of(options: Mapping[str, Any]) -> tuple[dict[str, Any], Train]:
    """Return what the options search, as plain values, and the function that trains a trial."""
    tuning = _prepare(options)
    return tuning.specification, tuning.train


def _run(
    tuning: TuningPlan, options: Mapping[str, Any], folder: str, resume: bool, progress: bool | None
) -> TuningResult:
    workers, url = number_of_workers(options), options["storage"]
    if url is None:
        return run_tuning(tuning, folder, None, TUNE_FOLDER, resume, workers, progress)
    shared = share("tune", options, tuning.specification, resume)
    with storage_errors():
        return run_tuning(
            tuning, folder, url, f"{shared.name} (candidates)", resume, workers, progress, shared.run, shared.outcomes
        )


def _prepare(options: Mapping[str, Any]) -> TuningPlan:
    """Read the data and make the plan, before anything is trained or written."""
    target = options["target"]
    data = load_data(target, options["size"])
    targets = options["targets"] or (("cnn",) if target == "digits" else ())
    models = load_models(targets, data)
    names = ("kind", "largest", "candidates", "seeds", "metric", "sampler", "pruner", "seed")
    with usage_errors():
        return prepare_tuning(
            models, data, sites=options["sites"] or "all", **{name: options[name] for name in names},
            **recipe_fields(options, target, data),
        )  # fmt: skip
