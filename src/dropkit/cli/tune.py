"""`dropkit tune`: search for a dropout rate for each site of a model."""

from __future__ import annotations

from typing import Any

import click

from dropkit.cli.options import not_empty
from dropkit.cli.study_options import (
    TUNE_FOLDER,
    GroupedCommand,
    comma_separated,
    model_options,
    option,
    storage_options,
    training_options,
    typed,
)
from dropkit.study_defaults import CANDIDATES, LARGEST, SEEDS

_SEARCHED, _RUN, _OUTPUT = "What is searched", "Where it runs", "Output"


@click.command("tune", cls=GroupedCommand)
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
    help=f"Keeps each trial and candidate as it finishes. [default: {TUNE_FOLDER}, or {TUNE_FOLDER}-2 and so on]",
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
    from dropkit.cli.actions.tune import tune

    context.exit(tune(typed(context), as_json, quiet, folder, resume, options))
