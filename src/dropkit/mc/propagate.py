"""propagate: predictions with their uncertainty from one pass that computes means and variances instead of samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import nn

from dropkit.arguments import check, positive_int
from dropkit.mc.all_batches import run_all_batches
from dropkit.mc.moments.moment_pass import MomentPass
from dropkit.mc.options import PassOptions, Settings, signature
from dropkit.mc.prediction import AnyPrediction, ClassPrediction, MultilabelPrediction, ValuePrediction

if TYPE_CHECKING:
    from typing_extensions import Unpack


@overload
def propagate(
    model: nn.Module,
    inputs: Any,
    draws: int = 100,
    task: Literal["classification"] = "classification",
    **options: Unpack[PassOptions],
) -> ClassPrediction: ...
@overload
def propagate(
    model: nn.Module, inputs: Any, draws: int = 100, *, task: Literal["multilabel"], **options: Unpack[PassOptions]
) -> MultilabelPrediction: ...
@overload
def propagate(
    model: nn.Module, inputs: Any, draws: int = 100, *, task: Literal["regression"], **options: Unpack[PassOptions]
) -> ValuePrediction: ...
@overload
def propagate(
    model: nn.Module, inputs: Any, draws: int = 100, *, task: Mapping[Any, Any], **options: Unpack[PassOptions]
) -> dict[Any, AnyPrediction]: ...
@overload
def propagate(
    model: nn.Module, inputs: Any, draws: int = 100, task: str = "classification", **options: Unpack[PassOptions]
) -> AnyPrediction: ...
@torch.no_grad()
def propagate(
    model: nn.Module,
    inputs: Any,
    draws: int = 100,
    task: str | Mapping[Any, Any] = "classification",
    **options: Unpack[PassOptions],
) -> AnyPrediction | dict[Any, AnyPrediction]:
    r"""Approximate what `predict` estimates by one pass that computes the mean and the variance of every element.

    Each dropout turns its input into means and variances, and each later layer computes those of its output from those
    of its input, by a rule. Before the first dropout a model may do anything. Covariances are neglected: the elements
    of a tensor count as independent, and in functions that are not linear as normal. So variances of values are exact
    for dropout whose mask elements are not shared, followed by one linear layer, and approximate otherwise.

    Class probabilities are means over `draws` from the normal logits (Kendall, Gal, 2017, section 3.3), which are
    stratified, and cost no passes.

    Args:
        model, inputs, task: as for `predict`.
        draws: of the outputs of each input; for values only where `keep_samples` asks for them.
        keep_samples: keep the draws as `r.samples`, (draws, N, ...).
        measures: as for `predict`; "basic" if None.
        errors: compute standard errors, which are those of the draws and not of the approximation. If None, with all
            measures alone.
        outputs: "logits" of classes and labels; for values as for `predict`.
        seed, class_dim, labels, ignore_index, valid, p, sites: as for `predict`.
        output, prepare_batch, batch_dim, batch_size, plain, progress: as for `predict`.

    Returns:
        What `predict` returns, with `draws` in place of samples.

    Raises:
        NoMomentRule: there is no rule for what the model computes after its first dropout; the error says where.
        NothingToSample: no dropout in the model is active.
        TypeError: `model` is not a module, or `inputs` hold no tensor.
        ValueError: an argument is out of range.

    Sources: Brach, Sick, Duerr, "Single Shot MC Dropout Approximation", 2020, arXiv:2007.03293; Kendall, Gal, "What
    Uncertainties Do We Need in Bayesian Deep Learning for Computer Vision?", 2017, arXiv:1703.04977.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
        >>> r = dropkit.mc.propagate(model, torch.randn(5, 4), task="regression")
        >>> r.mean.shape, r.variance.shape
        (torch.Size([5, 3]), torch.Size([5, 3]))
    """
    positive_int("draws", draws)
    settings = Settings.of(draws, task, options, "propagate", PassOptions)
    for name, of_head in settings.tasks.items():
        form = settings.of_head("outputs", name)
        check("outputs", form != "probabilities", f'"logits" with task="{of_head}"', form)
    settings = replace(settings, plan="stratified", replay=False, thin=False, measures=settings.measures or "basic")
    return run_all_batches(model, inputs, settings, MomentPass)


# What `help` shows; type checkers see `PassOptions`.
propagate.__signature__ = signature(propagate, PassOptions)  # pyright: ignore[reportFunctionMemberAccess] (as predict)
