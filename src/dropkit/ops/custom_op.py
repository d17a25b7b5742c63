"""The long way: operators that every mode of torch sees and can transform.

They carry the version of the mask specification in their names, so that what was compiled or exported for one version
never runs under another. Their coins are an affine map of the coordinates, and their key may have the input's leading
dimensions; both are closed under vmap, which adds a dimension with step 0 and, where keys differ, a key for each slice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.fx.experimental import proxy_tensor

from dropkit import kernels
from dropkit.kernels.params import RULES, DropoutParams
from dropkit.kernels.reference import row_major
from dropkit.ops import inductor
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


class Scheduled(NamedTuple):
    """The values of a rate that is read when the operator runs: a 0-d tensor, so that a new rate is no new graph."""

    p: Tensor
    rule: str
    constants: bool = True  # false for the gradient, which has neither shift nor fill

    @property
    def gradient(self) -> Scheduled:
        return self._replace(constants=False)

    def read(self) -> DropoutParams:
        p = self.p.item()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        values = RULES[self.rule](p)
        return values if self.constants else values.gradient


# Kept alive: the operators go when their library does.
_library = torch.library.Library("dropkit", "FRAGMENT")
_VALUES = {
    DropoutParams: ("drop_v1", "int threshold, float scale, float shift, float fill"),
    Scheduled: ("drop_at_v1", "Tensor p, str rule, bool constants"),
}
for _name, _values in _VALUES.values():
    _library.define(
        f"{_name}(Tensor input, Tensor key, {_values}, SymInt[]? steps, SymInt base) -> Tensor",
        tags=(torch.Tag.pt2_compliant_tag,),
    )


def drop(
    input: Tensor,
    key: Tensor | int,
    values: DropoutParams | Scheduled,
    steps: Sequence[int] | None = None,
    base: int = 0,
) -> Tensor:
    """Dropout by `values` with the coins of `key`; see `dropkit.ops.autograd.drop`."""
    if not isinstance(key, Tensor):
        key = torch.tensor(key, dtype=torch.int64, device=input.device)
    if isinstance(values, DropoutParams):
        return torch.ops.dropkit.drop_v1(input, key, *values, steps, base)
    return torch.ops.dropkit.drop_at_v1(input, key, *values, steps, base)


def drop_(
    input: Tensor,
    key: Tensor | int,
    values: DropoutParams | Scheduled,
    steps: Sequence[int] | None = None,
    base: int = 0,
) -> Tensor:
    """`drop` in place."""
    return input.copy_(drop(input, key, values, steps, base))


def _kind(numbers: Sequence[Any]) -> type[DropoutParams] | type[Scheduled]:
    return DropoutParams if len(numbers) == len(DropoutParams._fields) else Scheduled


def _operator(inputs: Sequence[Any]) -> Callable[..., Tensor]:
    return getattr(torch.ops.dropkit, _VALUES[_kind(inputs[2:-2])][0])


def _run(input: Tensor, key: Tensor, *arguments: Any) -> Tensor:
    """Both operators, on memory. `key` has one value for each place in the leading dimensions that it has."""
    *numbers, steps, base = arguments
    values = _kind(numbers)(*numbers)
    if input.dtype not in kernels.FLOATS:
        raise TypeError(f"input must be float16, bfloat16, float32 or float64, got {input.dtype}")
    if key.dtype != torch.int64 or key.shape != input.shape[: key.dim()]:
        raise TypeError(
            f"key must be an int64 tensor, 0-d or of the input's first sizes, got {key.dtype} of {tuple(key.shape)}"
        )
    if steps is not None and len(steps) != input.dim():
        raise ValueError(f"steps must be {input.dim()} numbers, one for each dimension, got {len(steps)}")
    if isinstance(values, Scheduled):
        values = values.read()
    output = torch.empty_like(input)
    if key.dim() == 0:
        kernels.drop(output, input, key, values, steps, base)
        return output
    steps = row_major(input.shape) if steps is None else steps
    for place in itertools.product(*map(range, key.shape)):
        first = base + sum(coordinate * step for coordinate, step in zip(place, steps, strict=False))
        kernels.drop(output[place], input[place], key[place], values, steps[key.dim() :], first)
    return output


def _fake(input: Tensor, key: Tensor, *numbers: Any) -> Tensor:
    refuse_meta("key", key, input)  # tensors on meta lead here, also where `input` has memory
    refuse_meta("p", numbers[0], input)
    return torch.empty_like(input)


def refuse_meta(name: str, value: Any, input: Tensor) -> None:
    """Raise unless a key or a rate can be read where `input` has memory.

    Raises:
        ValueError: `value` is a tensor on the meta device, and `input` is not.
    """
    if isinstance(value, Tensor) and value.is_meta and not input.is_meta:
        raise ValueError(f"{name} must be on the device of the input, {input.device}, or on the CPU, got one on meta")


def faked(key: _Key, input: FakeTensor) -> _Key:
    """A key as the mode of `input` takes it."""
    if not isinstance(key, Tensor) or type(key) is FakeTensor:
        return key
    return input.fake_mode.from_tensor(key)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, key, *numbers, steps, base = inputs
    saved = [key, *(number for number in numbers if isinstance(number, Tensor))]
    ctx.save_for_backward(*saved)
    ctx.save_for_forward(*saved)
    ctx.numbers = [None if isinstance(number, Tensor) else number for number in numbers]
    ctx.where = steps, base


def _gradient(ctx: Any, grad: Tensor) -> Tensor:
    key, *tensors = ctx.saved_tensors
    numbers = [tensors.pop() if number is None else number for number in ctx.numbers]
    return drop(grad, key, _kind(numbers)(*numbers).gradient, *ctx.where)


class _Drop(SingleLevelFunction):
    """The derivatives at one level of autograd; torch.func has a level for each of its transforms."""

    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        # A Function runs its forward without gradients, which the next level may want.
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
        input, key, *numbers, steps, base = inputs
        input_dim, key_dim, *others = in_dims[: 2 + len(numbers)]
        if any(dim is not None for dim in others):
            raise NotImplementedError("p must be the same for all slices under vmap, got one for each")
        if key_dim is not None or key.dim():
            key = _first(key, key_dim, info.batch_size)
        if steps is None:
            steps = row_major(input.shape if input_dim is None else input.movedim(input_dim, 0).shape[1:])
        inputs = _first(input, input_dim, info.batch_size), key, *numbers, (0, *steps), base
        return _operator(inputs)(*inputs), 0


def _first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The batch dimension in front, shared where there is none."""
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _differentiable(*inputs: Any) -> Tensor:
    """The operators above memory: torch's way of registering a gradient has neither torch.func nor forward mode."""
    # A graph that a compiler runs enters forward mode where Python does not see it; torch.func's levels it does.
    forward_mode = in_forward_mode() or functorch_is_active()
    if forward_mode or (inputs[0].requires_grad and torch.is_grad_enabled()):
        with single_level_functions():
            return cast("Any", _Drop).apply(*inputs)
    with below_autograd():
        return _operator(inputs)(*inputs)


for _name, _ in _VALUES.values():
    torch.library.impl(_library, _name, "CompositeExplicitAutograd")(_run)
    torch.library.impl(_library, _name, "Autograd")(_differentiable)
    torch.library.register_fake(f"dropkit::{_name}", _fake, lib=_library)
    torch.library.register_vmap(f"dropkit::{_name}", _Drop.vmap, lib=_library)


@torch.ops.dropkit.drop_v1.default.py_impl(proxy_tensor.ProxyTorchDispatchMode)
def _record(mode: proxy_tensor.ProxyTorchDispatchMode, *inputs: Any) -> Tensor:
    """Write a call into the graph that `mode` records."""
    inductor.prepare()
    return cast("Any", proxy_tensor).proxy_call(mode, torch.ops.dropkit.drop_v1.default, mode.pre_dispatch, inputs, {})
