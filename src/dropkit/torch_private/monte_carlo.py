"""Monte Carlo dropout: function modes, tensor subclasses without memory, packed sequences and write counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from dropkit.torch_private.lookup import AUDIT_AND_MC, MC, find

no_torch_function: Callable[[], AbstractContextManager[object]] = find("torch._C:DisableTorchFunction", AUDIT_AND_MC)
no_functorch: Callable[[], AbstractContextManager[object]] = find("torch._C:_DisableFuncTorch", MC)
# Makes every later access to the memory of a tensor an error.
make_unreadable: Callable[[Tensor], None] = find("torch._C:_set_throw_on_mutable_data_ptr", MC)
wrapper_subclass: Callable[..., Any] = find("torch:Tensor._make_wrapper_subclass", MC)
tree_flatten: Callable[[Any], tuple[list[Any], Any]] = find("torch.utils._pytree:tree_flatten", MC)
tree_unflatten: Callable[[Any, Any], Any] = find("torch.utils._pytree:tree_unflatten", MC)
pad_packed: Callable[..., tuple[Tensor, Tensor]] = find("torch:_VF._pad_packed_sequence", MC)
pack_padded: Callable[..., tuple[Tensor, Tensor]] = find("torch:_VF._pack_padded_sequence", MC)
_version: Any = find("torch:Tensor._version", MC)

# Functions that draw random numbers and have only private names; what torch lacks nobody calls.
DRAWING: tuple[Callable[..., Any], ...] = tuple(
    function
    for function in (
        find(f"torch:_VF.{name}", MC, None, "there is nothing to see", costs=False)
        for name in ("_standard_gamma", "_sample_dirichlet")
    )
    if function is not None
)


def write_count(tensor: Tensor) -> int:
    """How often `tensor` has been written; 0 for tensors of inference mode, whose writes are not counted."""
    return 0 if tensor.is_inference() else _version.__get__(tensor)


_address: Any = find("torch:UntypedStorage._cdata", AUDIT_AND_MC)


def storage_identity(storage: torch.UntypedStorage) -> int:
    """A number that no other storage has as long as this one exists."""
    return _address.__get__(storage)
