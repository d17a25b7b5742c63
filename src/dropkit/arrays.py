"""NumPy arrays as the inputs of a model."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn


def is_array(value: Any) -> bool:
    """Whether a value is a NumPy array, or states its memory as one does."""
    return hasattr(value, "__array_interface__") and not isinstance(value, Tensor)


def as_input(array: Any, model: nn.Module) -> Tensor:
    """Copy an array to a tensor; floats in the model's dtype, since float64 is only NumPy's default."""
    # torch accepts neither a foreign byte order nor negative strides.
    array = import_module("numpy").asarray(array)
    tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    floats = (parameter for parameter in model.parameters() if parameter.is_floating_point())
    first = next(floats, None)
    return tensor if first is None or not tensor.is_floating_point() else tensor.to(first.dtype)
