"""Rehearsal: run each kind of trial on a few examples, to meet at once the errors that every trial would meet."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dropkit import mc
from dropkit.arguments import check
from dropkit.mc.returned import tensor_of
from dropkit.studies.data import Data
from dropkit.studies.evaluation import Metric
from dropkit.studies.inputs import MakeModel
from dropkit.studies.plan import Plan
from dropkit.studies.setting import Setting
from dropkit.studies.training import Recipe, make, own_random_numbers, rehearse
from dropkit.studies.trial import Trial


def rehearse_all(plan: Plan, models: Mapping[str, MakeModel], data: Data, recipe: Recipe, metric: Metric) -> None:
    """Train each model with no dropout and with each kind at each choice of sites, on a few examples.

    Raises:
        ValueError: a model is not made anew and equal each time, or drops where a study cannot switch it off; a
            setting does not fit it; or its output does not fit the targets.
        Exception: the model's own.
    """
    for name, make_model in models.items():
        _check_that_models_are_equal(name, make_model, data)
        seen: set[tuple[str, tuple[str, ...] | None]] = set()
        for setting in plan.settings[name]:
            if (setting.kind, setting.sites) not in seen:
                seen.add((setting.kind, setting.sites))
                model = rehearse(Trial(name, setting, 0), make_model, data, recipe, metric)
                if setting.is_baseline:
                    _check_that_nothing_drops(model, data)


def _check_that_models_are_equal(name: str, make_model: MakeModel, data: Data) -> None:
    with own_random_numbers("cpu"):
        first, second = (make(Trial(name, Setting(), 0), make_model, data.example) for _ in range(2))
    check("model", first is not second, f"a function that makes a new model at each call ({name})", "one model twice")
    weights, others = map(_weights, (first, second))
    same = weights.keys() == others.keys() and all(torch.equal(weights[key], others[key]) for key in weights)
    wanted = f"a function whose initial weights follow from torch.manual_seed ({name})"
    check("model", same, wanted, "other weights after the same seed, so that no two trials would be a pair")


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.state_dict().items() if not is_lazy(value)}


def _check_that_nothing_drops(model: nn.Module, data: Data) -> None:
    try:
        mc.predict(model, data.example, 1, "regression", seed=0, output=tensor_of, progress=False)
    except mc.NothingToSample:
        return
    wanted = "one whose dropout is in modules, or in functions that get their rate from a number such as `self.dropout`"
    check("model", False, wanted, "dropout at a rate that cannot be changed; dropkit.audit(model, ...) shows where")
