"""Dropout as registered operators, which torch's compilers, transforms and modes can see and transform.

Their names carry the version of the mask specification, so that a program compiled or exported for one version never
runs under another. A mask index is an affine function of the coordinates, and the key may have the input's leading
dimensions. Both are closed under vmap, which adds a dimension of stride 0 and, where keys differ, a key for each slice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.fx.experimental import proxy_tensor

from dropkit import kernels
from dropkit.kernels.key import as_tensor, batch_shape, check_batch
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import IDENTITY, DropoutParams, NoiseParams, Params, ScheduledParams
from dropkit.ops import draw_key, inductor
from dropkit.torch_private import (
    FakeTensor,
    SingleLevelFunction,
    below_autograd,
    forward_mode_set_to,
    functorch_is_active,
    in_forward_mode,
    single_level_functions,
)

_Key = TypeVar("_Key", bound="Tensor | int | None")


# Kept alive: the operators go when their library does.
library: torch.library.Library = torch.library.Library("dropkit", "FRAGMENT")
_PARAMS = {
    DropoutParams: ("drop_v1", "int threshold, float scale, float shift, float fill"),
    NoiseParams: ("noise_v1", "int distribution, float factor, float term"),
    ScheduledParams: ("drop_at_v1", "Tensor p, str function, bool constants"),
}
OPERATORS = tuple(name for name, _ in _PARAMS.values())
for _name, _arguments in _PARAMS.values():
    library.define(
        f"{_name}(Tensor input, Tensor key, {_arguments}, SymInt[]? strides, SymInt offset) -> Tensor",
        tags=(torch.Tag.pt2_compliant_tag,),
    )


def drop(input: Tensor, mask: Mask) -> Tensor:
    """Dropout out of place; see `dropkit.ops.autograd.drop`."""
    key, params, strides, offset = mask
    key = as_tensor(key, input.device)
    if isinstance(params, DropoutParams):
        return torch.ops.dropkit.drop_v1(input, key, *params, strides, offset)
    if isinstance(params, NoiseParams):
        return torch.ops.dropkit.noise_v1(input, key, *params, strides, offset)
    return torch.ops.dropkit.drop_at_v1(input, key, *params, strides, offset)


def params(numbers: Sequence[Any]) -> Params:
    """The parameters from the flat arguments of an operator."""
    if isinstance(numbers[0], Tensor):
        return ScheduledParams(*numbers)
    return (DropoutParams if len(numbers) == len(DropoutParams._fields) else NoiseParams)(*numbers)


def _operator(inputs: Sequence[Any]) -> Callable[..., Tensor]:
    return getattr(torch.ops.dropkit, _PARAMS[type(params(inputs[2:-2]))][0])


def _run(input: Tensor, key: Tensor, *arguments: Any) -> Tensor:
    """Run any of the operators on memory, with one key for each slice along the dimensions that `key` has."""
    *numbers, strides, offset = arguments
    if input.dtype not in kernels.FLOATS:
        raise TypeError(f"input must be float16, bfloat16, float32 or float64, got {input.dtype}")
    if input.is_sparse:  # the gradient of an embedding
        return _run(input.to_dense(), key, *arguments).sparse_mask(input.coalesce())
    check_batch(key, input.shape)
    if strides is not None and len(strides) != input.dim():
        raise ValueError(f"strides must be {input.dim()} numbers, one for each dimension, got {len(strides)}")
    output, of_mask = torch.empty_like(input), params(numbers)
    # A GPU's kernel reads the rate.
    kernels.drop(output, input, Mask(key, of_mask.resolve() if input.is_cpu else of_mask, strides, offset))
    return output


def _fake(input: Tensor, key: Tensor, *numbers: Any) -> Tensor:
    refuse_meta("key", key, input)  # any argument on meta dispatches here, even if `input` has memory
    refuse_meta("p", numbers[0], input)
    return torch.empty_like(input)


def refuse_meta(name: str, value: Any, input: Tensor) -> None:
    """Refuse a key or a rate without memory for an input that has memory."""
    if isinstance(value, Tensor) and value.is_meta and not input.is_meta:
        raise ValueError(f"{name} must be on the device of the input, {input.device}, or on the CPU, got one on meta")


def as_fake(key: _Key, input: FakeTensor) -> _Key:
    """The key as a tensor of the fake mode of `input`."""
    if not isinstance(key, Tensor) or type(key) is FakeTensor:
        return key
    return input.fake_mode.from_tensor(key)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, key, *numbers, strides, offset = inputs
    saved = [key, *(number for number in numbers if isinstance(number, Tensor))]
    saved = [tensor.clone() if tensor.is_inference() else tensor for tensor in saved]  # autograd saves no such tensor
    ctx.save_for_backward(*saved)
    ctx.save_for_forward(*saved)
    ctx.numbers = [None if isinstance(number, Tensor) else number for number in numbers]
    ctx.indices = strides, offset


def _gradient(ctx: Any, grad: Tensor) -> Tensor:
    key, *tensors = ctx.saved_tensors
    numbers = [tensors.pop() if number is None else number for number in ctx.numbers]
    mask = Mask(key, params(numbers), *ctx.indices).gradient
    return grad if mask.params is IDENTITY else drop(grad, mask)


class _Drop(SingleLevelFunction):
    """The derivatives at one level of autograd; torch.func has a level for each of its transforms."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        # A Function runs its forward without gradients, but the next level may need them.
        with below_autograd(), torch.enable_grad(), forward_mode_set_to(True):
            return _operator(inputs)(*inputs)

    setup_context = staticmethod(_setup_context)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _gradient(ctx, grads[0]), *(None,) * (len(ctx.needs_input_grad) - 1)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _gradient(ctx, tangents[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        input, key, *numbers, strides, offset = inputs
        input_dim, key_dim, *others = in_dims[: 2 + len(numbers)]
        if any(dim is not None for dim in others):
            raise NotImplementedError("p must be the same for all slices under vmap, got one for each")
        mask = Mask(key, params(numbers), strides, offset)
        input, mask = for_all_slices(input, input_dim, mask, key_dim, info.batch_size)
        return drop(input, mask), 0


def for_all_slices(input: Tensor, dim: int | None, mask: Mask, key_dim: int | None, size: int) -> tuple[Tensor, Mask]:
    """The tensor whose first dimension is the batch of a vmap, and its mask.

    Args:
        input: the tensor below vmap.
        dim: its batch dimension; None if it is the same for all slices.
        mask: of a slice. Its key is below vmap too.
        key_dim: the batch dimension of the key; None if it is the same for all slices.
        size: of the batch.
    """
    input = _batch_first(input, dim, size)
    key = mask.key
    if isinstance(key, Tensor) and (key_dim is not None or batch_shape(key)):
        key = _batch_first(key, key_dim, size)
    return input, Mask(key, mask.params, (0, *mask.strides_for(input.shape[1:])), mask.offset)


def _batch_first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """Move the batch dimension to the front; expand a tensor without one."""
    if dim is None:
        return tensor.expand(size, *tensor.shape)
    return tensor.movedim(dim, 0) if dim else tensor


def _differentiable(*inputs: Any) -> Tensor:
    """Add derivatives: `torch.library.register_autograd` supports neither torch.func nor forward mode."""
    # A compiled graph enters forward mode without Python's `forward_ad` knowing; levels of torch.func are visible.
    forward_mode = in_forward_mode() or functorch_is_active()
    if forward_mode or (inputs[0].requires_grad and torch.is_grad_enabled()):
        with single_level_functions():
            return cast("Any", _Drop).apply(*inputs)
    with below_autograd():
        return _operator(inputs)(*inputs)


for _name in [name for name, _ in _PARAMS.values()]:
    torch.library.impl(library, _name, "CompositeExplicitAutograd")(_run)
    torch.library.impl(library, _name, "Autograd")(_differentiable)
    torch.library.register_fake(f"dropkit::{_name}", _fake, lib=library)
    torch.library.register_vmap(f"dropkit::{_name}", _Drop.vmap, lib=library)


def _record(operator: Any, mode: proxy_tensor.ProxyTorchDispatchMode, *inputs: Any) -> Tensor:
    """Record a call in the graph of `mode`."""
    inductor.prepare()
    draw_key.keep(inputs[1], mode.tracer)
    return cast("Any", proxy_tensor).proxy_call(mode, operator, mode.pre_dispatch, inputs, {})


for _name in OPERATORS:
    _recorded = getattr(torch.ops.dropkit, _name).default
    _recorded.py_impl(proxy_tensor.ProxyTorchDispatchMode)(functools.partial(_record, _recorded))
