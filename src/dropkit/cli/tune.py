"""`dropkit tune`: search for a dropout rate for each site of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from signal import SIGINT, SIGTERM
from typing import Any

import click

from dropkit import files
from dropkit.cli.model_loading import Failed
from dropkit.cli.options import FAILED, not_empty
from dropkit.cli.sharing import share, storage_errors, storage_options
from dropkit.cli.signals import Terminated, sigterm_raises
from dropkit.cli.study import ANSWERED, NOT_ANSWERED, number_of_workers, numbered_folder, resuming
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
from dropkit.studies.plan import provenance
from dropkit.studies.storage import MissingPackage
from dropkit.studies.study import SEEDS
from dropkit.studies.trial_log import FolderInUse, OtherStudy
from dropkit.studies.tuning import CANDIDATES, LARGEST, TuningPlan, TuningResult, prepare_tuning, run_tuning
from dropkit.studies.workers import Train

_FOLDER = "dropkit-tune"
_SEARCHED, _RUN, _OUTPUT = "What is searched", "Where it runs", "Output"


@click.command(cls=Command)
@model_options
@option(
    _SEARCHED,
    "--kind",
    metavar="NAME",
    default="dropout",
    show_default=True,
    help="dropout, dropout2d, or a layer of dropkit.nn.",
)
@option(
    _SEARCHED,
    "--sites",
    metavar="all|NAMES",
    callback=comma_separated(),
    help="Where rates are searched: at all sites, or at modules of these names. [default: all]",
)
@option(
    _SEARCHED,
    "--largest",
    type=float,
    default=LARGEST,
    show_default=True,
    metavar="RATE",
    help="The largest rate to try; rates are multiples of 0.05.",
)
@option(
    _SEARCHED,
    "--candidates",
    "--trials",
    "candidates",
    type=int,
    default=CANDIDATES,
    show_default=True,
    metavar="N",
    help="How many rates to try, single rates for all sites included.",
)
@option(
    _SEARCHED,
    "--seeds",
    type=int,
    default=SEEDS,
    show_default=True,
    metavar="N",
    help="How often a candidate is trained, unless it is stopped.",
)
@option(
    _SEARCHED,
    "--metric",
    metavar="NAME",
    help="error, nll, ece, rmse, mae, or a class of torchmetrics. [default: error of classes, rmse of values]",
)
@option(
    _SEARCHED,
    "--sampler",
    default="tpe",
    show_default=True,
    metavar="NAME",
    help="Of Optuna: tpe, random, cmaes or gp.",
)
@option(
    _SEARCHED,
    "--pruner",
    default="race",
    show_default=True,
    metavar="NAME",
    help="race: stop a candidate whose paired difference to the best one is significantly worse; median or wilcoxon "
    "of Optuna; or none.",
)
@option(_SEARCHED, "--seed", type=int, default=0, show_default=True, metavar="N", help="Of the sampler.")
@training_options
@option(
    _RUN,
    "--workers",
    type=int,
    metavar="N",
    help="Candidates that are trained at the same time, each in a process. [default: as of study]",
)
@option(
    _RUN,
    "--folder",
    metavar="FOLDER",
    callback=not_empty,
    help=f"Keeps each trial and candidate as it finishes. [default: {_FOLDER}, or {_FOLDER}-2 and so on]",
)
@option(
    _RUN,
    "--resume",
    is_flag=True,
    help="Continue the search in the folder, by default in the last one, perhaps with more candidates.",
)
@storage_options(_RUN)
@option(_OUTPUT, "--json", "as_json", is_flag=True, help="Print one JSON object; fractions are in [0, 1].")
@option(_OUTPUT, "--quiet", "-q", is_flag=True, help="Show no progress bar.")
@click.pass_context
def command(
    context: click.Context, as_json: bool, quiet: bool, folder: str | None, resume: bool, **options: Any
) -> None:
    """Search for a dropout rate for each site of a model with Optuna.

    MODEL is as of `dropkit study`, cnn by default. The first candidates have one rate for all sites. All are compared
    in pairs with no dropout, on validation examples; what the best one changes is reported on test examples, compared
    with no dropout and with the best single rate.

    Exit code: 0 there is an answer, 1 nothing can be concluded, 2 error, 130 Ctrl-C, 143 SIGTERM. Finished trials are
    kept in any case; the same command with --resume continues.
    """
    context.exit(_tune(typed(context), as_json, quiet, folder, resume, options))


def _tune(
    command: str, as_json: bool, quiet: bool, folder: str | None, resume: bool, options: Mapping[str, Any]
) -> int:
    """Run a search and print it; return the exit code."""
    tuning = _prepare(options)
    tuning = replace(tuning, plan=replace(tuning.plan, provenance=provenance(command)))
    where = numbered_folder(_FOLDER, folder, resume)
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
        return run_tuning(tuning, folder, None, _FOLDER, resume, workers, progress)
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
    try:
        with usage_errors():
            return prepare_tuning(
                models, data, sites=options["sites"] or "all", **{name: options[name] for name in names},
                **recipe_fields(options, target, data),
            )  # fmt: skip
    except MissingPackage as error:
        raise Failed(str(error)) from error
