"""The backward pass of an audit, whose gradients are discarded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dropkit.torch_private import run_backward


def backward(model: nn.Module, outputs: list[Tensor], inputs: list[Tensor]) -> str | None:
    """Compute the gradients of the sum of the outputs; return the first line of the error if that fails."""
    differentiable = [output for output in outputs if output.requires_grad and output.is_floating_point()]
    ones = tuple(torch.ones_like(output) for output in differentiable)
    leaves = tuple(tensor for tensor in (*model.parameters(), *inputs) if tensor.requires_grad and tensor.is_leaf)
    if not leaves or not differentiable:
        return None
    # Reentrant checkpoints support accumulation into `grad` only.
    reentrant = _has_reentrant_checkpoint(differentiable)
    try:
        # The engine itself: torch.autograd.grad would disable our function mode during recomputation.
        run_backward(
            tuple(differentiable), ones, False, False, () if reentrant else leaves,
            allow_unreachable=True, accumulate_grad=reentrant,
        )  # fmt: skip
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    return None


def _has_reentrant_checkpoint(tensors: list[Tensor]) -> bool:
    queue: list[Any] = [tensor.grad_fn for tensor in tensors]
    seen: set[Any] = set()
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        if node.name() == "CheckpointFunctionBackward":
            return True
        seen.add(node)
        queue += [following for following, _ in node.next_functions]
    return False
