"""`dropkit study`: train models with and without dropout, and say which kind, where and at what rate."""

from __future__ import annotations

from typing import Any

import click

from dropkit.cli.options import not_empty
from dropkit.cli.study_options import (
    DIGITS_SEEDS,
    MAX_WORKERS,
    STUDY_FOLDER,
    GroupedCommand,
    comma_separated,
    model_options,
    option,
    storage_options,
    training_options,
    typed,
)
from dropkit.study_defaults import RATES, SEEDS

_COMPARED, _RUN, _OUTPUT = "What is compared", "Where it runs", "Output"


@click.command("study", cls=GroupedCommand)
@model_options
@option(
    _COMPARED,
    "--kinds",
    metavar="NAMES",
    callback=comma_separated(),
    help="Separated by commas: dropout, dropout2d, batchwise, always-on, or layers of dropkit.nn. "
    "[default: dropout; digits: all of these]",
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
    help=f"Trials of each setting. [default: {SEEDS}; digits: {DIGITS_SEEDS}]",
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
    f"[default: one per core, at most {MAX_WORKERS}; 1 with another device than the CPU]",
)
@option(
    _RUN,
    "--folder",
    metavar="FOLDER",
    callback=not_empty,
    help=f"Keeps each trial as it finishes, and the reports. [default: {STUDY_FOLDER}, or {STUDY_FOLDER}-2 and so on]",
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
    from dropkit.cli.actions.study import study

    context.exit(study(typed(context), as_json, quiet, folder, resume, options))
