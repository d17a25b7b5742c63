"""The levels of torch.func's transforms: which one is the innermost, and the tensors that it wraps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from dropkit.torch_private.eager import count_dispatch_modes, functorch_interpreter, tracing_state
from dropkit.torch_private.lookup import VMAP, find

_BY_OPERATORS = "transforms take every call by way of torch's dispatcher, which takes some 50 us for each"


def _find(name: str) -> Any:
    return find(f"torch._C:_functorch.{name}", VMAP, None, _BY_OPERATORS, costs=False)


_pop, _push = _find("pop_dynamic_layer_stack"), _find("push_dynamic_layer_stack")
_kinds: Any = _find("TransformType")
_vmap, _grad = _find("CVmapInterpreterPtr"), _find("CGradInterpreterPtr")
# The tensor below a level of vmap, and which of its dimensions is the batch; (tensor, None) if it is the same for all.
unwrap_batched: Callable[[Tensor, int], tuple[Tensor, int | None]] = _find("_unwrap_batched")
unwrap_for_grad: Callable[[Tensor, int], Tensor] = _find("_unwrap_for_grad")
wrap_for_grad: Callable[[Tensor, int], Tensor] = _find("_wrap_for_grad")
_policies: Any = _find("RandomnessType")
_parts = (_pop, _push, _kinds, _vmap, _grad, _policies, unwrap_batched, unwrap_for_grad, wrap_for_grad)
_ARE_FOUND = all(part is not None for part in _parts)


# Numbers instead of torch's constants, whose comparison takes a microsecond.
VMAP_KIND, GRAD_KIND = (_kinds.Vmap.value, _kinds.Grad.value) if _ARE_FOUND else (-1, -1)
_NAMES = ("Error", "Same", "Different") if _ARE_FOUND else ()
_POLICIES = {getattr(_policies, name).value: name.lower() for name in _NAMES}


def eager_transform() -> Any:
    """The interpreter of the innermost transform; None if there is none, or if a compiler or a mode sees it.

    Outside of that transform, `functorch_interpreter` tells the next one.
    """
    if not _ARE_FOUND or is_dynamo_compiling() or count_dispatch_modes() or tracing_state() is not None:
        return None
    return functorch_interpreter()


def transform_kind(transform: Any) -> int:
    """`VMAP_KIND`, `GRAD_KIND` or another number."""
    return transform.key().value


def batch_size(vmap: Any) -> int:
    """The number of slices of a vmap."""
    return _vmap(vmap).batchSize()


def randomness(vmap: Any) -> str:
    """What a vmap does with random numbers: "error", "same" or "different"."""
    return _POLICIES[_vmap(vmap).randomness().value]


def had_grad_enabled(grad: Any) -> bool:
    """Whether gradients were enabled where a transform for gradients was entered."""
    return _grad(grad).prevGradMode()


class outside_transform:  # noqa: N801 (a context manager, which as a generator would take a microsecond more)
    """A context of the next outer transform, or of none."""

    __slots__ = ("_transform",)

    def __enter__(self) -> None:
        self._transform = _pop()

    def __exit__(self, *_: object) -> None:
        _push(self._transform)
