"""The functions that drop, as the objects that a torch function mode sees: the catalog's names, looked up."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import FunctionType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from dropkit import catalog
from dropkit.catalog import ATTENTION, FUNCTIONALS, MULTI_HEAD, MULTI_HEAD_P, MULTI_HEAD_TRAINING

# Recurrent functions, and positions of their arguments: torch.lstm(input, hx, params, has_biases, num_layers, dropout,
# train, ...). For packed sequences the sizes of the batches come second, and every position is one higher.
RECURRENT: set[Callable[..., Any]] = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
NUM_LAYERS_POSITION, DROPOUT_POSITION, TRAIN_POSITION = 4, 5, 6

# Classes of modules that drop inside their own computation.
RATE_HOLDERS: tuple[type[nn.Module], ...] = tuple(getattr(nn, name) for name in sorted(catalog.HOLDER_KINDS))

# (position, name) of an argument; a position of None means that it is passed by name alone.
Parameter = tuple["int | None", str]

# Functions that update statistics in training, and their flag: F.batch_norm(input, running_mean, running_var, weight,
# bias, training, ...).
NORMS: dict[Any, Parameter] = {F.batch_norm: (5, "training"), F.instance_norm: (5, "use_input_stats")}
RUNNING_MEAN: Parameter = (1, "running_mean")


@dataclass(frozen=True, slots=True)
class DropoutFunction:
    """A function that drops.

    Attributes:
        name: the last part of its name.
        attention: whether it is attention with dropout inside.
        p, training, inplace: the parameters; None if it has none.
        p_default, training_default: their values in a call without them.
    """

    name: str
    attention: bool
    p: Parameter
    p_default: float = 0.5
    training: Parameter | None = None
    training_default: bool | None = None
    inplace: Parameter | None = None

    def arguments(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[float | bool | None, bool | None, bool]:
        """Return `p`, `training` and `inplace` of a call."""
        p = argument(self.p, args, kwargs, self.p_default)
        training = self.training and argument(self.training, args, kwargs, self.training_default)
        inplace = self.name.endswith("_") or (self.inplace and argument(self.inplace, args, kwargs, False))
        if isinstance(p, torch.Tensor):
            p = p.detach().item()  # which does not warn where `p` is learned
        return p, None if training is None else bool(training), bool(inplace)

    def with_training(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], training: bool = True
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments of a call with its training flag set."""
        return (args, kwargs) if self.training is None else replaced(self.training, args, kwargs, training)


def replaced(
    parameter: Parameter, args: Sequence[Any], kwargs: Mapping[str, Any], value: Any
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments of a call with this value for one of them."""
    position, name = parameter
    if position is not None and position < len(args):
        return (*args[:position], value, *args[position + 1 :]), kwargs
    return args, {**kwargs, name: value}


def argument(parameter: Parameter, args: Sequence[Any], kwargs: Mapping[str, Any], default: Any) -> Any:
    """Return one argument of a call."""
    position, name = parameter
    if position is not None and position < len(args):
        return args[position]
    return kwargs.get(name, default)


@lru_cache(maxsize=1)
def dropout_functions() -> dict[Any, DropoutFunction]:
    """Return every importable function of the catalog, dropkit's, and torch's operators of the same names."""
    importlib.import_module("dropkit.functional")
    functions: dict[Any, DropoutFunction] = {}
    for name, entry in FUNCTIONALS.items():
        function = DropoutFunction(
            name.rpartition(".")[2],
            attention=False,
            p=(entry.p, entry.p_name),
            training=(entry.training, entry.training_name),
            training_default=entry.training_default,
            inplace=None if entry.inplace is None else (entry.inplace, "inplace"),
        )
        _add(functions, function, name, f"dropkit.functional.{function.name}")
        if name.startswith("torch.") and name.count(".") == 1:
            _add(functions, function, f"torch._C._VariableFunctions.{function.name}")
            _add(functions, function, f"torch.ops.aten.{function.name}", f"torch.ops.aten.{function.name}.default")
            inplace = DropoutFunction(f"{function.name}_", False, function.p, training=function.training)
            aten = f"torch.ops.aten.{function.name}_"
            _add(functions, inplace, f"{name}_", aten, f"{aten}.default")
    for name, p in ATTENTION.items():
        _add(functions, DropoutFunction(name.rpartition(".")[2], attention=True, p=p, p_default=0.0), name)
    multi_head = DropoutFunction(
        "multi_head_attention_forward",
        attention=True,
        p=(MULTI_HEAD_P, "dropout_p"),
        p_default=0.0,
        training=(MULTI_HEAD_TRAINING, "training"),
        training_default=True,
    )
    _add(functions, multi_head, MULTI_HEAD)
    return functions


@cache
def multi_head_code(**replaced: Callable[..., Any]) -> Callable[..., Any]:
    """`F.multi_head_attention_forward` without its check for a mode, which would call the mode again.

    Args:
        replaced: functions that it calls in place of those of `torch.nn.functional` of these names.
    """
    original = cast("FunctionType", F.multi_head_attention_forward)

    def has_torch_function(arguments: Any) -> bool:
        return False

    names = {**original.__globals__, "has_torch_function": has_torch_function, **replaced}
    return FunctionType(original.__code__, names, original.__name__, original.__defaults__, original.__closure__)


def _add(functions: dict[Any, DropoutFunction], function: DropoutFunction, *names: str) -> None:
    for name in names:
        value: Any = sys.modules.get(name.partition(".")[0])
        for part in name.split(".")[1:]:
            value = getattr(value, part, None)
        if value is not None:
            functions.setdefault(value, function)
