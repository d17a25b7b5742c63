"""Activation checkpointing in eager mode: signs that a region runs, and the code that runs it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dropkit.torch_private.lookup import CHECKPOINT, find

_ONLY_GENERATORS = "a checkpointed region has one mask only where torch restores its generators"


def _no_hooks(_: bool) -> None:
    return None


saved_tensors_hooks: Callable[[bool], Any] = find(
    "torch._C:_autograd._top_saved_tensors_default_hooks", CHECKPOINT, _no_hooks, _ONLY_GENERATORS, costs=False
)
# The number of the backward pass that runs in this thread, -1 if none does.
backward_pass: Callable[[], int] = find(
    "torch._C:_current_graph_task_id", CHECKPOINT, lambda: -1, _ONLY_GENERATORS, costs=False
)
# False in the forward of an autograd Function.
forward_mode_is_enabled: Callable[[], bool] = find(
    "torch._C:_is_fwd_grad_enabled", CHECKPOINT, lambda: True, _ONLY_GENERATORS, costs=False
)
checkpoint_hook: Any = find("torch.utils.checkpoint:_checkpoint_hook", CHECKPOINT, None, _ONLY_GENERATORS, costs=False)
# The body of `checkpoint` since torch 2.14.
checkpoint_function: Any = find(
    "torch.utils.checkpoint:_checkpoint_impl",
    CHECKPOINT,
    None,
    "the public function has its code, as before 2.14",
    costs=False,
)
without_dispatch_modes: Callable[[], AbstractContextManager[object]] = find(
    "torch._C:_DisableTorchDispatch", CHECKPOINT, nullcontext, "modes see the keys of checkpointed regions", costs=False
)
