"""What the reports on classes and on values share: standard errors, ties, lines of text, and plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from torch import Tensor


def standard_error(values: Tensor, counted: Tensor | None = None) -> float:
    """Return the standard error of the mean over inputs: the labels of one input are not independent.

    Args:
        counted: which of the values count, of their shape; all if None.
    """
    inputs = values.flatten(1).mean(1) if values.dim() > 1 else values
    if counted is not None and values.dim() > 1:
        count = counted.flatten(1).sum(1)
        inputs = (values.where(counted, 0.0).flatten(1).sum(1) / count)[count > 0]
    return (inputs.std() / math.sqrt(len(inputs))).item() if len(inputs) > 1 else math.nan


def group_equal(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank of each value among the distinct values, ascending, and the count of each distinct value."""
    _, group, count = cast("tuple[Tensor, Tensor, Tensor]", values.unique(return_inverse=True, return_counts=True))
    return group, count


def line(name: str, value: float, error: float | None = None) -> str:
    """Return a line of a report as text: a name, a number and its standard error."""
    number = f"{value:>11}" if isinstance(value, int) else f"{value:>11.4f}"
    return f"{name:<32} {number}" + ("" if error is None else f" +- {error:.4f}")


def plain(value: Any) -> Any:
    """Return a report, or numbers, as values that JSON can hold; None for what is not a finite number."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in cast("list[Any]", value)]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value
