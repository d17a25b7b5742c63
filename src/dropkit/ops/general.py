"""The long way: an operator that every mode of torch sees and can transform.

`dropkit::drop_v1` carries the version of the mask specification in its name, so that what was compiled or exported for
one version never runs under another. Its coins are an affine map of the coordinates, which is closed under vmap: a new
dimension has step 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from dropkit import kernels
from dropkit.kernels.reference import row_major
from dropkit.kernels.values import Values

_SCHEMA = (
    "(Tensor input, Tensor key, int threshold, float scale, float shift, float fill, SymInt[] steps, SymInt base)"
    " -> Tensor"
)

# Kept alive: the operator goes when its library does.
_library = torch.library.Library("dropkit", "DEF")
_library.define("drop_v1" + _SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))


def drop(input: Tensor, key: Tensor | int, values: Values, steps: Sequence[int] | None = None, base: int = 0) -> Tensor:
    """Dropout by `values` with the coins of `key`; see `dropkit.ops.eager.drop`."""
    if not isinstance(key, Tensor):
        key = torch.tensor(key, dtype=torch.int64, device=input.device)
    steps = row_major(input.shape) if steps is None else tuple(steps)
    numbers = values.threshold, values.scale, values.shift, values.fill
    if is_dynamo_compiling():
        return torch.ops.dropkit.drop_v1(input, key, *numbers, steps, base)
    return _apply(input, key, *numbers, steps, base)


def drop_(
    input: Tensor, key: Tensor | int, values: Values, steps: Sequence[int] | None = None, base: int = 0
) -> Tensor:
    """`drop` in place."""
    return input.copy_(drop(input, key, values, steps, base))


@torch.library.impl(_library, "drop_v1", "CompositeExplicitAutograd")
def _run(
    input: Tensor, key: Tensor, threshold: int, scale: float, shift: float, fill: float, steps: Sequence[int], base: int
) -> Tensor:
    if input.dtype not in kernels.FLOATS:
        raise TypeError(f"input must be float16, bfloat16, float32 or float64, got {input.dtype}")
    if key.dtype != torch.int64 or key.dim() != 0:
        raise TypeError(f"key must be a 0-d int64 tensor, got {key.dim()}-d {key.dtype}")
    if len(steps) != input.dim():
        raise ValueError(f"steps must be {input.dim()} numbers, one for each dimension, got {len(steps)}")
    output = torch.empty_like(input)
    kernels.drop(output, input, key, Values(threshold, scale, shift, fill), steps, base)
    return output


def _fake(input: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(input)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, key, *numbers, steps, base = inputs
    ctx.save_for_backward(key)
    ctx.save_for_forward(key)
    ctx.coins = Values(*numbers).gradient, steps, base


def _gradient(ctx: Any, grad: Tensor) -> Tensor:
    (key,) = ctx.saved_tensors
    return drop(grad, key, *ctx.coins)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        return torch.ops.dropkit.drop_v1(*inputs)

    setup_context = staticmethod(_setup_context)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return (_gradient(ctx, grads[0]),) + (None,) * 7

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _gradient(ctx, tangents[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        input, key, *numbers, steps, base = inputs
        input_dim, key_dim = in_dims[:2]
        if key_dim is None:
            assert input_dim is not None  # otherwise vmap would not have asked
            return _apply(input.movedim(input_dim, 0), key, *numbers, (0, *steps), base), 0
        slices = [input] * info.batch_size if input_dim is None else input.unbind(input_dim)
        pairs = zip(slices, key.unbind(key_dim), strict=True)
        return torch.stack([_apply(slice, own, *numbers, steps, base) for slice, own in pairs]), 0


_apply = cast("Callable[..., Tensor]", _Drop.apply)
torch.library.register_fake("dropkit::drop_v1", _fake, lib=_library)
torch.library.register_autograd("dropkit::drop_v1", _Drop.backward, setup_context=_setup_context, lib=_library)
