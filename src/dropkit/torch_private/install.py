"""`dropkit.install`: classes of tensors and operators, and the kernels of torch's operators."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from dropkit.torch_private.lookup import AUDIT, INSTALL, attribute, find, find_base

if TYPE_CHECKING:
    from torch._ops import OpOverload as OpOverload
    from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor as FunctionalTensor
else:
    FakeTensor = find_base("torch._subclasses.fake_tensor:FakeTensor", INSTALL)
    FunctionalTensor = find_base("torch._subclasses.functional_tensor:FunctionalTensor", INSTALL)
    OpOverload = find_base("torch._ops:OpOverload", AUDIT)

_no_dispatch: Any = find("torch._C:_disabled_torch_dispatch_impl", INSTALL)
_is_included: Any = find("torch._C:_dispatch_tls_is_dispatch_key_included", INSTALL)
_PYTHON_DISPATCHER: Any = find("torch._C:DispatchKey.PythonDispatcher", INSTALL)
_COMPOSITE: Any = find("torch._C:DispatchKey.CompositeImplicitAutograd", INSTALL)
_call_kernel = attribute("_op_dk", INSTALL)
_destroy: Any = find("torch.library:Library._destroy", INSTALL)
_DISPATCH_KEY: Any = find("torch._C:DispatchKey", INSTALL)


def sees_operators(kind: type[Any]) -> bool:
    """Whether a tensor class handles operators in `__torch_dispatch__`."""
    return getattr(kind, "__torch_dispatch__", None) is not _no_dispatch


def run_composite(operator: OpOverload, *arguments: Any) -> Any:
    """Run torch's composite kernel of an operator: in C++, or its Python decomposition while a compiler traces."""
    if _is_included(_PYTHON_DISPATCHER):
        return operator.decompose(*arguments)
    return _call_kernel(operator)(_COMPOSITE, *arguments)


def destroy(library: torch.library.Library) -> None:
    """Unregister every kernel that was registered by `library`."""
    _destroy(library)


def forget_dispatch(operator: OpOverload) -> None:
    """Clear torch's cache of the kernels of `operator`, if this torch has one."""
    getattr(operator, "_dispatch_cache", {}).clear()


def has_kernel(operator: OpOverload, key: str) -> bool:
    """Whether torch has a kernel of `operator` for the dispatch key of this name."""
    return operator.has_kernel_for_dispatch_key(getattr(_DISPATCH_KEY, key))


# Runs the layers of a recurrent network that a compiler decomposes; None if this torch has no such function.
rnn_helper: Callable[..., Any] | None = find(
    "torch._decomp.decompositions:_rnn_helper",
    INSTALL,
    None,
    "compiled recurrent networks have the dropout that torch gives them",
    costs=False,
)
_decompositions: Any = sys.modules.get("torch._decomp.decompositions")


def set_rnn_helper(helper: Callable[..., Any]) -> None:
    """Replace torch's `rnn_helper` by `helper`."""
    _decompositions._rnn_helper = helper


def rnn_layer(name: str) -> Callable[..., Any]:
    """torch's function that runs one layer for `rnn_helper`."""
    return getattr(_decompositions, name)
