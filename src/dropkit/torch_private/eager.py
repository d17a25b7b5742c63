"""Eager mode: modes, transforms and tracers that a call must not bypass, and tensors without memory of their own.

If torch cannot tell, dropkit assumes that there is one, and calls registered operators, which all of them can see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from dropkit.torch_private.lookup import DROPOUT, find


def _always(_: object) -> bool:
    return True


def _is_tracing_by_jit() -> object:
    jit: Any = torch.jit
    return jit.is_tracing() or None


_AS_OTHER_MODES = "the mode of torch.set_default_device counts as one that must see products"
_BY_OPERATORS = "every call goes by way of torch's dispatcher, which takes some 20 us"
_BY_MULTIPLYING = "autograd is asked by multiplying by 1"

count_dispatch_modes: Callable[[], int] = find("torch._C:_len_torch_dispatch_stack", DROPOUT, lambda: 1, _BY_OPERATORS)
_top_transform: Any = find(
    "torch._C:_functorch.peek_interpreter_stack", DROPOUT, None, "the dispatcher is asked for transforms", costs=False
)
functorch_is_active: Callable[[], bool] = find(
    "torch._C:_are_functorch_transforms_active",
    DROPOUT,
    lambda: _top_transform is None or _top_transform() is not None,
    "the stack of transforms is asked",
    costs=False,
)
# None unless a transform of torch.func runs, also where it is excluded from dispatch.
functorch_interpreter: Callable[[], object] = _top_transform or (lambda: functorch_is_active() or None)
is_legacy_batched: Callable[[Tensor], bool] = find(
    "torch._C:_functorch.is_legacy_batchedtensor", DROPOUT, _always, _BY_OPERATORS
)
is_zero_tensor: Callable[[Tensor], bool] = find("torch:Tensor._is_zerotensor", DROPOUT, _always, _BY_OPERATORS)
_function_modes: Any = find(
    "torch.overrides:_get_current_function_mode_stack", DROPOUT, None, _AS_OTHER_MODES, costs=False
)
_device_mode: Any = find("torch.utils._device:DeviceContext", DROPOUT, None, _AS_OTHER_MODES, costs=False)


def function_modes_only_place_tensors() -> bool:
    """Whether all function modes, if there are any, are those of default devices: they change no call on tensors."""
    if _function_modes is None or _device_mode is None:
        return False
    return all(type(mode) is _device_mode for mode in _function_modes())


# None unless torch.jit.trace runs.
tracing_state: Callable[[], object] = find(
    "torch._C:_get_tracing_state", DROPOUT, _is_tracing_by_jit, "torch.jit is asked", costs=False
)


def _empty_by_dispatcher(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")


# A new tensor of these sizes, strides and dtype. Code that inductor writes calls it, too: it asks the allocator and not
# the dispatcher, which saves 2 us in a forward and backward pass.
empty_on_cpu: Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], Tensor] = find(
    "torch._C:_dynamo.guards._empty_strided_cpu",
    DROPOUT,
    _empty_by_dispatcher,
    "torch.empty_strided makes outputs",
    costs=False,
)
# The index of the GPU that is current in this thread. torch's builds for CPUs have no such name.
current_gpu: Callable[[], int] = (
    find("torch._C:_cuda_getDevice", DROPOUT, torch.cuda.current_device, "the public function is called", costs=False)
    if torch.version.cuda or torch.version.hip
    else torch.cuda.current_device
)
_has_backward_class: bool = (
    find("torch.autograd:Function._backward_cls", DROPOUT, None, "torch looks for backward in every pass", costs=False)
    is not None
)


def call_backward_directly(function: type[torch.autograd.Function]) -> None:
    """Let backward passes call the `backward` of a Function; torch first looks whether it has a `vjp`, for 0.5 us."""
    if _has_backward_class:
        cast("Any", function)._backward_cls.apply = vars(function)["backward"].__func__


_forward_ad: Any = torch.autograd.forward_ad
_LEVEL_IS_UNKNOWN = (
    find("torch.autograd.forward_ad:_current_level", DROPOUT, None, "every call is prepared for forward mode") is None
)


def in_forward_mode() -> bool:
    """Whether a level of forward-mode differentiation is open."""
    return _LEVEL_IS_UNKNOWN or _forward_ad._current_level >= 0


_creation_meta: Any = find("torch._C:_autograd._get_creation_meta", DROPOUT, None, _BY_MULTIPLYING, costs=False)
_default_creation: Any = find("torch._C:_autograd.CreationMeta.DEFAULT", DROPOUT, None, _BY_MULTIPLYING, costs=False)
_base: Any = find("torch:Tensor._base", DROPOUT, None, _BY_MULTIPLYING, costs=False)


def may_be_written(input: Tensor) -> bool:
    """Whether autograd allows writing in place to a tensor that requires grad; false if that is unknown."""
    if input.is_leaf or _base is None:
        return False
    base = _base.__get__(input)
    if base is None:
        return True
    return not base.is_leaf and _creation_meta is not None and _creation_meta(input) == _default_creation
