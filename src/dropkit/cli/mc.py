"""`dropkit mc`: predict with uncertainty from a model and data, and compare with the truth where it is known."""

from __future__ import annotations

import math
from typing import Any

import click

from dropkit.cli.options import Command

_CHOICES = {
    "--task": ("classification", "multilabel", "regression"),
    "--masks": ("input", "chunk", "shared"),
    "--plan": ("iid", "stratified"),
    "--outputs": ("logits", "probabilities", "values", "mean_log_variance", "mean_variance", "mean_std"),
    "--measures": ("all", "basic"),
    "--color": ("auto", "always", "never"),
}


def _choice(name: str, help: str | None = None, has_default: bool = True) -> Any:
    default = _CHOICES[name][0] if has_default else None
    return click.option(name, type=click.Choice(_CHOICES[name]), default=default, show_default=True, help=help)


def _positive(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"must be larger than 0 and finite, got {value}")
    return value


@click.command("mc", cls=Command)
@click.argument("model", metavar="CHECKPOINT|FILE.py:NAME")
@click.option(
    "--data",
    required=True,
    metavar="FILE|FILE.py:NAME",
    help="Inputs: an .npy, .npz or .pt file with x and y, or with the model's arguments by name; or a function "
    "that returns inputs, (inputs, labels), a data set or a loader of such pairs. NumPy floats are converted to "
    "the model's dtype.",
)
@click.option("--labels", metavar="FILE", help="True labels or values, instead of those in --data: .npy, .npz or .pt.")
@click.option(
    "--weights",
    metavar="FILE",
    help="Weights for the model that FILE.py:NAME makes: a state dict, a checkpoint that holds one (of "
    "Lightning, also with prefixes of DistributedDataParallel and torch.compile), or a .safetensors file.",
)
@click.option(
    "--trust",
    is_flag=True,
    help="Load a CHECKPOINT, or --weights, that holds a whole module or other objects. This runs code in the file.",
)
@click.option("--samples", type=click.IntRange(min=1), default=50, show_default=True, help="Passes for each input.")
@_choice(
    "--task",
    "What the model returns: classes of which one is true (also for each token or pixel, see --class-dim), labels "
    "of which several may be true, or values.",
)
@_choice(
    "--masks",
    "Which inputs share dropout masks. Default: chunk for classification of many inputs, else input.",
    has_default=False,
)
@_choice(
    "--plan",
    "Independent masks, or stratified ones: each unit is kept equally often over the samples.",
)
@click.option(
    "--output",
    metavar="NAME|INDEX",
    help="Which output of a model that returns several: the key, attribute or index. Default: logits or out, the "
    "only tensor, or the first of a tuple.",
)
@_choice(
    "--outputs",
    "The form of the outputs: logits or probabilities; values, or their mean with the noise around it. "
    "[default: logits, or values]",
    has_default=False,
)
@click.option(
    "--classes",
    metavar="NAMES|FILE",
    help="Names of the classes or labels in their order: a,b,c, or a file with one in each line, or of JSON. "
    "Default: those of the data set or of the model's configuration, if it has some.",
)
@_choice(
    "--measures",
    "All measures with their standard errors, or basic ones, which are as fast as the passes. Default: all where "
    "an input has at most 256 numbers of output, else basic.",
    has_default=False,
)
@click.option(
    "--class-dim",
    type=int,
    help="Dimension of the classes in the output: -1 for tokens (N, T, C), 1 for pixels (N, C, H, W). Default: 1 "
    "for outputs of two dimensions, else found from the model's configuration or the shape of the labels.",
)
@click.option(
    "--ignore-index", type=int, default=-100, show_default=True, help="The label of tokens or pixels to ignore."
)
@click.option(
    "--target-standard-error",
    metavar="FLOAT",
    type=float,
    callback=_positive,
    help="Stop sampling an input when the standard error of its mean is at most this.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the masks.")
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True, help="Inputs in a pass.")
@click.option(
    "--tau",
    type=float,
    callback=_positive,
    help="Precision of the observation noise (1 / variance), for regression. Default: fitted to the true values.",
)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many of the least certain inputs to show.",
)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write everything as one JSON document: options, warnings, notes, every measure of every input, the plain "
    "pass, the report and the table by class; - for standard output, without the table.",
)
@click.option(
    "--jsonl",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write a line of JSON for each input; - writes them to standard output, without the table. Numbers that "
    "are not finite are null, and so are tensors of more than 1000 numbers.",
)
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write an HTML page with plots, a table by class, and pictures of inputs that are images.",
)
@_choice("--color")
@click.pass_context
def command(context: click.Context, **options: Any) -> int:
    """Predict with uncertainty: run a model many times with dropout active (Monte Carlo dropout).

    FILE.py:NAME (or package.module:NAME) is a module, or a class or function that makes one; CHECKPOINT is a whole
    module saved by torch.save (see --trust).

    Exit code: 0 success, 2 error.
    """
    from dropkit.cli.actions.mc import predict_and_compare

    return predict_and_compare(context, **options)
