"""The backward pass of an audit, whose gradients nobody keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dropkit.torch_private import run_backward


def backward(model: nn.Module, outputs: list[Tensor], inputs: list[Tensor]) -> str | None:
    """The gradients of the sum of the outputs, kept nowhere; or the first line of why there are none."""
    wanted = [one for one in outputs if one.requires_grad and one.is_floating_point()]
    ones = tuple(torch.ones_like(one) for one in wanted)
    leaves = tuple(one for one in (*model.parameters(), *inputs) if one.requires_grad and one.is_leaf)
    if not leaves or not wanted:
        return None
    # The engine itself, since what torch calls with it would be a function under our mode, and what is recomputed too.
    # Reentrant checkpoints know one way only, which writes `grad`.
    reentrant = _is_reentrant(wanted)
    try:
        run_backward(
            tuple(wanted), ones, False, False, () if reentrant else leaves,
            allow_unreachable=True, accumulate_grad=reentrant,
        )  # fmt: skip
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    return None


def _is_reentrant(tensors: list[Tensor]) -> bool:
    """Whether the graph of gradients has a reentrant checkpoint in it."""
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
