"""The functions that drop, as objects: from the catalog's names to what torch hands to a function mode."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from dropkit import catalog
from dropkit.catalog import ATTENTION, FUNCTIONALS, MULTI_HEAD, MULTI_HEAD_P, MULTI_HEAD_TRAINING

# torch.lstm(input, hx, params, has_biases, num_layers, dropout, train, ...): places in both forms of a call. In the
# other form sizes of steps come second, for packed sequences.
RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
LAYERS, DROPOUT, TRAIN = 4, 5, 6

# Classes of modules that drop inside their own computation.
RATE_HOLDERS: tuple[type[nn.Module], ...] = tuple(getattr(nn, name) for name in sorted(catalog.RATE_HOLDERS))

# What keeps statistics while it trains, and what the flag is called: F.batch_norm(input, running_mean, running_var,
# weight, bias, training, ...).
NORMS = {F.batch_norm: (5, "training"), F.instance_norm: (5, "use_input_stats")}
RUNNING_MEAN = (1, "running_mean")

# (place, name) of an argument; a place of None means by name alone.
Where = tuple["int | None", str]


@dataclass(frozen=True, slots=True)
class DropoutFunction:
    """A function that drops: its name, whether it is attention with dropout inside, and where its arguments stand."""

    name: str
    attention: bool
    p: Where
    p_default: float
    training: Where | None
    training_default: bool | None
    inplace: Where | None

    def reads(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[float | bool | None, bool | None, bool]:
        """p, training and inplace of a call."""
        p = argument(self.p, args, kwargs, self.p_default)
        training = self.training and argument(self.training, args, kwargs, self.training_default)
        inplace = self.name.endswith("_") or (self.inplace and argument(self.inplace, args, kwargs, False))
        if isinstance(p, torch.Tensor):
            p = float(p)
        return p, None if training is None else bool(training), bool(inplace)

    def in_training(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments of a call with its flag on."""
        return (args, kwargs) if self.training is None else replaced(self.training, args, kwargs, True)


def replaced(
    where: Where, args: Sequence[Any], kwargs: Mapping[str, Any], value: Any
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The arguments of a call with this one instead."""
    place, name = where
    if place is not None and place < len(args):
        return (*args[:place], value, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: value}


def argument(where: Where, args: Sequence[Any], kwargs: Mapping[str, Any], default: Any) -> Any:
    place, name = where
    if place is not None and place < len(args):
        return args[place]
    return kwargs.get(name, default)


@lru_cache(maxsize=1)
def dropout_functions() -> dict[Any, DropoutFunction]:
    """Every function of the catalog that can be had here, ours, and torch's operators of the same names."""
    importlib.import_module("dropkit.functional")
    found: dict[Any, DropoutFunction] = {}
    for name, one in FUNCTIONALS.items():
        function = DropoutFunction(
            name.rpartition(".")[2], False, (one.p, one.p_name), 0.5,
            (one.training, one.training_name), one.training_default,
            None if one.inplace is None else (one.inplace, "inplace"),
        )  # fmt: skip
        _add(found, function, name, f"dropkit.functional.{function.name}")
        if name.startswith("torch.") and name.count(".") == 1:
            _add(found, function, f"torch._C._VariableFunctions.{function.name}")
            _add(found, function, f"torch.ops.aten.{function.name}", f"torch.ops.aten.{function.name}.default")
            inplace = DropoutFunction(f"{function.name}_", False, function.p, 0.5, function.training, None, None)
            aten = f"torch.ops.aten.{function.name}_"
            _add(found, inplace, f"{name}_", aten, f"{aten}.default")
    for name, p in ATTENTION.items():
        _add(found, DropoutFunction(name.rpartition(".")[2], True, p, 0.0, None, None, None), name)
    multi_head = DropoutFunction(
        "multi_head_attention_forward", True, (MULTI_HEAD_P, "dropout_p"), 0.0,
        (MULTI_HEAD_TRAINING, "training"), True, None,
    )  # fmt: skip
    _add(found, multi_head, MULTI_HEAD)
    return found


def _add(found: dict[Any, DropoutFunction], function: DropoutFunction, *names: str) -> None:
    for name in names:
        thing: Any = sys.modules.get(name.partition(".")[0])
        for part in name.split(".")[1:]:
            thing = getattr(thing, part, None)
        if thing is not None:
            found.setdefault(thing, function)
