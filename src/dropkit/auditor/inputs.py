"""Inputs and outputs, however they are packed: their tensors, and copies that a model may do with as it likes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from torch import Tensor, nn


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
