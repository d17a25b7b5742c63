"""What the qualities of classes and values share: how they are checked, summed up and said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from torch import Tensor


def standard_error(values: Tensor) -> float:
    """Of the mean over inputs: the labels of one input are not independent of one another."""
    inputs = values.flatten(1).mean(1) if values.dim() > 1 else values
    return (inputs.std() / math.sqrt(len(inputs))).item() if len(inputs) > 1 else math.nan


def line(name: str, value: float, error: float | None = None) -> str:
    number = f"{value:>11}" if isinstance(value, int) else f"{value:>11.4f}"
    return f"{name:<32} {number}" + ("" if error is None else f" +- {error:.4f}")


def plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return cast("list[float]", value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, tuple):
        return [plain(one) for one in cast("tuple[Any, ...]", value)]
    if hasattr(value, "__dataclass_fields__"):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    return value
