"""dropkit's registered operators: autograd, vmap, memory budgets, and the modes that compilers trace with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from dropkit.torch_private.eager import functorch_is_active
from dropkit.torch_private.lookup import INSTALL, OPERATORS, VMAP, find, find_base, require


def _nothing(_: object) -> None:
    return None


below_autograd: Callable[[], AbstractContextManager[object]] = find("torch._C:_AutoDispatchBelowAutograd", OPERATORS)
forward_mode_set_to: Callable[[bool], AbstractContextManager[object]] = find(
    "torch.autograd.forward_ad:_set_fwd_grad_enabled", f"{OPERATORS} and {INSTALL}"
)
SingleLevelFunction: Any = find_base("torch.autograd.function:_SingleLevelFunction", OPERATORS)
single_level_functions: Callable[[], AbstractContextManager[object]] = find(
    "torch._functorch.utils:enable_single_level_autograd_function", OPERATORS
)

_memory_budget: Any = find(
    "torch.fx.traceback:_get_memory_budget_annotation",
    OPERATORS,
    _nothing,
    "a region has no memory budget of its own, as in all of torch before 2.13",
    costs=False,
)
find(
    "torch._functorch.config:activation_memory_budget",
    OPERATORS,
    None,
    "drawn keys are saved for backward under any memory budget",
)
_functorch_config: Any = sys.modules.get("torch._functorch.config")


def memory_budget(node: torch.fx.Node) -> float:
    """The fraction of activations that a compiled function may keep where `node` is."""
    budget = _memory_budget(node)
    return getattr(_functorch_config, "activation_memory_budget", 1.0) if budget is None else budget


vmap_level: Callable[[], Any] = find("torch._functorch.pyfunctorch:retrieve_current_functorch_interpreter", VMAP)
as_batched: Callable[[Tensor, int, int], Tensor] = find("torch._C:_functorch._add_batch_dim", VMAP)
_without_keys: Any = find("torch._C:_ExcludeDispatchKeyGuard", VMAP)
_keys: Any = find("torch._C:DispatchKeySet", VMAP)
_VMAP_MODE: Any = find("torch._C:DispatchKey.FuncTorchVmapMode", VMAP)


_transforms: Callable[[], Any] = find(
    "torch._C:_functorch.get_interpreter_stack",
    VMAP,
    None,
    "dropkit.shard refuses to split a batch under any transform of torch.func, not under vmap alone",
    costs=False,
)


def may_be_under_vmap() -> bool:
    """Whether vmap may hide a dimension of tensors; compilers see that there are transforms, not of which kind."""
    if not functorch_is_active():
        return False
    if torch.compiler.is_dynamo_compiling() or _transforms is None:
        return True
    return any(transform.key().name == "Vmap" for transform in _transforms() or ())


def below_vmap() -> AbstractContextManager[object]:
    """A context in which an operator that vmap calls for random numbers may call itself for all slices."""
    require(VMAP)
    return _without_keys(_keys(_VMAP_MODE))


_NO_MODE = "no mode is known"
get_mode: Any = find("torch._C:_get_dispatch_mode", OPERATORS, _nothing, _NO_MODE, costs=False)
FAKE: Any = find("torch._C:_TorchDispatchModeKey.FAKE", OPERATORS, None, _NO_MODE, costs=False)
FUNCTIONAL: Any = find("torch._C:_TorchDispatchModeKey.FUNCTIONAL", OPERATORS, None, _NO_MODE, costs=False)
PROXY: Any = find("torch._C:_TorchDispatchModeKey.PROXY", OPERATORS, None, _NO_MODE, costs=False)


def fake_mode() -> Any:
    """The active FakeTensorMode; None if there is none."""
    return None if FAKE is None else get_mode(FAKE)


def is_traced() -> bool:
    """Whether a mode is active that compilers trace with."""
    return any(kind is not None and get_mode(kind) is not None for kind in (FAKE, FUNCTIONAL, PROXY))
