"""Copies of inputs, so that a model may change what it receives."""

from __future__ import annotations

import copy
from typing import Any

from dropkit.containers import tensors_in_objects


def copy_inputs(inputs: Any) -> Any:
    """Copy nested inputs; their tensors become leaves that require gradients if the originals did.

    Raises:
        TypeError: something among the inputs cannot be copied.
    """
    memo: dict[int, Any] = {}
    for tensor in tensors_in_objects(inputs):
        memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    try:
        return copy.deepcopy(inputs, memo)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"inputs must be tensors, or containers that can be copied: {error}") from error
