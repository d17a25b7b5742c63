"""Inputs and outputs, however they are packed: their tensors, and copies that a model may do with as it likes."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def arranged(model: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that a batch is, as a loader yields it.

    Names that `forward` takes are given by name, a tuple by position, a list by position where `forward` takes no
    single argument. Anything else is the one argument.

    Raises:
        TypeError: `forward` takes it in none of these ways.
    """
    whole: tuple[tuple[Any, ...], dict[str, Any]] = (batch,), {}
    named = _by_name(batch)
    if named is None and (not isinstance(batch, (list, tuple)) or isinstance(batch, PackedSequence)):
        return whole
    placed: tuple[tuple[Any, ...], dict[str, Any]] = tuple(cast("list[Any]", batch)) if named is None else (), {}
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # not Python's
        return ((), named) if named is not None else placed if isinstance(batch, tuple) else whole
    if named is not None:
        return _named(model, signature, named, whole)
    ways = [placed, whole] if isinstance(batch, tuple) else [whole, placed]
    chosen = next((way for way in ways if _fits(signature, *way)), None)
    if chosen is None:
        wanted = ", ".join(signature.parameters)
        raise TypeError(f"inputs must be what {_forward(model)} takes ({wanted}), got {len(placed[0])} in a list")
    return chosen


def _named(
    model: nn.Module, signature: inspect.Signature, named: dict[str, Any], whole: tuple[tuple[Any, ...], dict[str, Any]]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    parameters = signature.parameters
    first = next(iter(parameters.values()), None)
    wants_mapping = first is not None and re.search(r"[Dd]ict\b|Mapping|Encoding", str(first.annotation)) is not None
    if wants_mapping and _fits(signature, *whole):
        return whole
    if all(isinstance(name, str) for name in named) and _fits(signature, (), named):
        return (), named
    if not parameters.keys() & named.keys() and _fits(signature, *whole):
        return whole
    wanted, odd = ", ".join(parameters), [str(name) for name in named if name not in parameters]
    got = ", ".join(odd) if odd else f"only {', '.join(map(str, named))}"
    raise TypeError(f"inputs must be named as the arguments of {_forward(model)} ({wanted}), got {got}")


def _by_name(batch: Any) -> dict[Any, Any] | None:
    """The parts of a mapping, or of a dataclass, by their names."""
    if isinstance(batch, Mapping):
        return dict(cast("Mapping[Any, Any]", batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in fields(batch)}
    return None


def _fits(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _forward(model: nn.Module) -> str:
    return f"{type(model).__name__}.forward"


def fresh(inputs: Any) -> Any:
    """A copy that a model may do with as it likes; tensors keep whether they require gradients.

    Raises:
        TypeError: something among the inputs cannot be copied.
    """
    memo: dict[int, Any] = {}
    for tensor in leaves(inputs):
        memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    try:
        return copy.deepcopy(inputs, memo)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"inputs must be tensors, or containers that can be copied: {error}") from error


def leaves(value: Any, depth: int = 0) -> list[Tensor]:
    """The tensors in nested containers, dataclasses and objects with attributes."""
    if isinstance(value, Tensor):
        return [value]
    if depth > 8 or isinstance(value, (str, bytes, int, float, type(None))):
        return []
    inner: list[Any]
    if isinstance(value, Mapping):
        inner = list(cast("Mapping[Any, Any]", value).values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = list(cast("list[Any]", value))
    elif is_dataclass(value):
        inner = [getattr(cast("Any", value), field.name) for field in fields(value)]
    elif hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type)):
        inner = list(cast("dict[str, Any]", vars(value)).values())
    else:
        return []
    return [tensor for one in inner for tensor in leaves(one, depth + 1)]
