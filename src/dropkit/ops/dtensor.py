"""Dropout of DTensors: each rank drops its part of the whole tensor, without communication.

A mask index is an affine function of the coordinates in the whole tensor, so a rank needs no more than where its part
begins. Output and gradient have the placements of what they are computed from. In eager mode the kernel runs on the
local tensor at once; whatever wants to see dropkit's operators gets them on the local tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.compiler.config
from torch import Generator, Tensor

from dropkit import kernels
from dropkit.kernels.key import batch_shape
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import IDENTITY, ScheduledParams
from dropkit.ops import autograd, custom_op, dtensor_keys
from dropkit.ops.dtensor_part import Runs, is_plain, part_of
from dropkit.torch_private import dtensor_spec, in_forward_mode, is_traced, local_tensor

# From a part of the local tensor, the strides of its mask and its first mask index, to that part after dropout.
_DropPart = Callable[[Tensor, "Sequence[int] | None", int], Tensor]

# Reductions that commute with dropout: linear ones if no constant is added, and those of the order of numbers always.
_LINEAR, _MONOTONIC = ("sum", "avg"), ("max", "min")

_DTensor: Any = None
# What to do with the class DTensor once torch has loaded it; dropkit itself does not import it.
_waiting: list[Callable[[Any], None]] = []


@torch.compiler.assume_constant_result
def prepare() -> None:
    """Teach DTensor the operators of `teach` if torch has loaded it by now."""
    global _DTensor
    if _DTensor is None and (module := sys.modules.get("torch.distributed.tensor")) is not None:
        _DTensor = getattr(module, "DTensor", None)  # None while the module is being imported
    while _DTensor is not None and _waiting:
        _waiting.pop()(_DTensor)


def teach(register: Callable[[Any], None]) -> None:
    """Call `register` with the class DTensor, now or when it is first met."""
    _waiting.append(register)
    prepare()


def is_dtensor(input: Tensor) -> bool:
    """Whether `input` is of torch's class DTensor itself."""
    prepare()
    return type(input) is _DTensor


def can_use_fast_path(input: Tensor) -> bool:
    """Whether `input` is a DTensor of an ordinary local tensor, and nothing needs to see the operators that run."""
    return (
        type(input) is _DTensor
        and not (autograd.is_being_traced() or in_forward_mode())
        and autograd.is_ordinary(local_tensor(input))
    )


def has_memory(input: Tensor) -> bool:
    """Whether `input` is a DTensor of which each rank holds a part, and no compiler traces."""
    prepare()  # which a compiler runs, too
    if autograd.is_dynamo_compiling() or type(input) is not _DTensor:
        return False
    return not is_traced() and autograd.is_ordinary(local_tensor(input))


def agree_on_generator(input: Tensor, generator: Generator | None) -> None:
    """Let all ranks draw the same keys for a DTensor; see `dtensor_keys.agree`."""
    dtensor_keys.agree(dtensor_spec(input).mesh, input.device, generator)


def check_key(input: Tensor, mask: Mask) -> None:
    """Raise under `dtensor_keys.check_keys` unless all ranks have this key."""
    dtensor_keys.check(dtensor_spec(input).mesh, input.shape, mask.key)


def drop(input: Tensor, mask: Mask) -> Tensor:
    """`dropkit.ops.autograd.drop` for a DTensor; the strides of the mask are those for the whole tensor."""
    if input.requires_grad and torch.is_grad_enabled():
        return cast("Tensor", _Drop.apply(input, mask))
    return _drop_eagerly(input, mask)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return _drop_eagerly(input, mask)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        mask = ctx.mask.gradient
        if mask.params is IDENTITY:
            return grad, None
        return (drop if can_use_fast_path(grad) else custom_op.drop)(grad, mask), None


def _drop_eagerly(input: Any, mask: Mask) -> Tensor:
    def drop_part(local: Tensor, strides: Sequence[int] | None, offset: int) -> Tensor:
        output = torch.empty_like(local)
        kernels.drop(output, local, mask._replace(strides=strides, offset=offset))
        return output

    return _on_local_tensor(input, drop_part, mask)


def _rule(_: object, operator: Callable[..., Tensor], types: object, inputs: Sequence[Any], named: object) -> Tensor:
    """Run an operator of `dropkit.ops.custom_op` on the local tensor of `inputs[0]`."""
    input, *others, strides, offset = inputs
    if type(input) is not _DTensor:
        raise TypeError(f"input must be a DTensor where another argument is one, got {type(input).__name__}")
    if is_traced():
        _keep_compiled_code_apart()
    key, *numbers = (_replicated(value) if isinstance(value, _DTensor) else value for value in others)
    if batch_shape(key):
        raise NotImplementedError(f"key must be one key for a DTensor, got a batch of shape {batch_shape(key)}")

    def drop_part(local: Tensor, strides: Sequence[int] | None, offset: int) -> Tensor:
        return operator(local, key, *numbers, strides, offset)

    return _on_local_tensor(input, drop_part, Mask(key, custom_op.params(numbers), strides, offset))


def _keep_compiled_code_apart() -> None:
    """Add the rank to the key of torch's caches on disk: a graph holds where this rank's part begins, the key does not.

    The operator runs before torch looks a graph up, since dynamo runs it to learn the shape of its output.
    """
    config = torch.compiler.config
    tags, own = config.cache_key_tag.split(), f"dropkit-rank-{torch.distributed.get_rank()}"
    if own not in tags:
        config.cache_key_tag = " ".join([*tags, own])


def _replicated(value: Any) -> Tensor:
    """The local tensor of a key or a rate, which must be the same on all ranks."""
    if not all(placement.is_replicate() for placement in value.placements):
        raise ValueError(f"key and p must be replicated where they are DTensors, got {value.placements}")
    return local_tensor(value)


def _on_local_tensor(input: Any, drop_part: _DropPart, mask: Mask) -> Tensor:
    """Drop this rank's part of `input` under a mask of the whole tensor."""
    spec = dtensor_spec(input)
    if any(placement.is_partial() for placement in spec.placements):
        input = _summed_up(input, mask)
        spec = dtensor_spec(input)
    local = local_tensor(input)
    coordinate = spec.mesh.get_coordinate()
    if coordinate is None:  # this rank is outside of the mesh, and holds nothing
        return _wrap(torch.empty_like(local), spec)
    part = part_of(spec, coordinate)
    if part.local_shape is not None and part.local_shape != local.shape:
        raise RuntimeError(
            f"input must have a local tensor of shape {part.local_shape} by its placements {spec.placements}, got "
            f"{tuple(local.shape)}; pass shape= and stride= to DTensor.from_local where parts differ in size"
        )
    if mask.strides is None and part.is_one_slice:
        output = drop_part(local, None, mask.offset + part.offset)
    else:
        strides = part.strides if mask.strides is None else mask.strides
        output = _drop_runs(drop_part, local, part.runs, strides, mask.offset)
    return _wrap(output, part.like(spec))


def _wrap(local: Tensor, spec: Any) -> Tensor:
    if autograd.is_being_traced():
        return _DTensor(local, spec, requires_grad=False)
    # Without `__init__`, which does nothing but to keep compilers out, in 4 us.
    return _DTensor.__new__(_DTensor, local, spec, requires_grad=False)


def _summed_up(input: Any, mask: Mask) -> Any:
    """Replace partial sums by the sum where dropout does not commute with it, as torch does for its operators."""
    params = mask.params
    if isinstance(params, ScheduledParams):
        params = params.form
    is_linear = params == params.gradient
    commuting = _MONOTONIC + _LINEAR if is_linear else _MONOTONIC
    replicate: Any = sys.modules["torch.distributed.tensor"].Replicate()
    placements = [
        placement
        if not placement.is_partial() or (is_plain(placement, "Partial") and placement.reduce_op in commuting)
        else replicate
        for placement in input.placements
    ]
    return input if placements == list(input.placements) else input.redistribute(placements=placements)


def _drop_runs(
    drop_part: _DropPart, local: Tensor, runs: Sequence[Runs], strides: Sequence[int], offset: int
) -> Tensor:
    """Drop a local tensor whose elements need not be neighbours in the whole tensor."""
    dim = next((dim for dim, of_dim in enumerate(runs) if len(of_dim) > 1), None)
    if dim is None:
        first = sum(of_dim[0][0] * stride for of_dim, stride in zip(runs, strides, strict=True))
        return drop_part(local, tuple(strides), offset + first)
    before, of_dim, after = runs[:dim], runs[dim], runs[dim + 1 :]
    start, length = of_dim[0]
    step, count = of_dim[1][0] - start, len(of_dim)
    if all(run == (start + step * number, length) for number, run in enumerate(of_dim)):
        # Along the runs, and within each of them.
        both: list[Runs] = [((0, count),), ((start, length),)]
        unflattened = cast("Any", local).unflatten(dim, (count, length))
        strides = [*strides[:dim], step * strides[dim], *strides[dim:]]
        return _drop_runs(drop_part, unflattened, [*before, *both, *after], strides, offset).flatten(dim, dim + 1)
    pieces = [
        _drop_runs(drop_part, piece, [*before, (run,), *after], strides, offset)
        for piece, run in zip(cast("Any", local).split([size for _, size in of_dim], dim), of_dim, strict=True)
    ]
    return torch.empty_like(local).copy_(torch.cat(pieces, dim))


def _teach_own_operators(kind: Any) -> None:
    for name in custom_op.OPERATORS:
        torch.library.register_torch_dispatch(f"dropkit::{name}", kind, _rule, lib=custom_op.library)


teach(_teach_own_operators)
