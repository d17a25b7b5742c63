"""The levels of torch.func's transforms: which one is the innermost, and the tensors that it wraps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dropkit.torch_private.eager import count_dispatch_modes, functorch_interpreter, tracing_state
from dropkit.torch_private.lookup import VMAP, find

_BY_OPERATORS = "transforms take every call by way of torch's dispatcher, which takes some 50 us for each"


def _find(name: str) -> Any:
    return find(f"torch._C:_functorch.{name}", VMAP, None, _BY_OPERATORS, costs=False)


_pop, _push = _find("pop_dynamic_layer_stack"), _find("push_dynamic_layer_stack")
_kinds: Any = _find("TransformType")
_vmap, _grad = _find("CVmapInterpreterPtr"), _find("CGradInterpreterPtr")
_randomness = _find("RandomnessType")
# The tensor below a level of vmap, and which of its dimensions is the batch; (tensor, None) if it is the same for all.
unwrap_batched: Callable[[Tensor, int], tuple[Tensor, int | None]] = _find("_unwrap_batched")
unwrap_for_grad: Callable[[Tensor, int], Tensor] = _find("_unwrap_for_grad")
wrap_for_grad: Callable[[Tensor, int], Tensor] = _find("_wrap_for_grad")
_parts = (_pop, _push, _kinds, _vmap, _grad, _randomness, unwrap_batched, unwrap_for_grad, wrap_for_grad)
_ARE_FOUND = all(part is not None for part in _parts)


def innermost_transform() -> Any:
    """The interpreter of the innermost transform in eager mode; None if there is none, or something traces it."""
    if not _ARE_FOUND or torch.compiler.is_dynamo_compiling() or count_dispatch_modes() or tracing_state() is not None:
        return None
    return functorch_interpreter()


def is_vmap(transform: Any) -> bool:
    return transform.key() == _kinds.Vmap


def is_grad(transform: Any) -> bool:
    return transform.key() == _kinds.Grad


def batch_of(vmap: Any) -> tuple[int, str]:
    """The number of slices of a vmap, and its `randomness`."""
    pointer = _vmap(vmap)
    return pointer.batchSize(), pointer.randomness().name.lower()


def had_grad_enabled(grad: Any) -> bool:
    """Whether gradients were enabled where a transform for gradients was entered."""
    return _grad(grad).prevGradMode()


@contextmanager
def outside_transform() -> Iterator[None]:
    """A context of the next outer transform, or of none."""
    transform = _pop()
    try:
        yield
    finally:
        _push(transform)
