"""Drawing keys by an operator, which compilers, transforms and modes treat as random.

Compilers merge equal calls, reorder them, and run them again for the backward pass; each would give another mask. Two
additions to a recorded graph prevent that: a draw takes the draw before it as an argument, so that no two are equal and
their order is a data dependency; and its key of eight bytes is marked to be saved, so that it is never drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.fx.experimental import proxy_tensor
from torch.utils.checkpoint import CheckpointPolicy

from dropkit.kernels.key import HIGHEST, LOWEST
from dropkit.ops import inductor, recompute
from dropkit.torch_private import (
    VMAP_KIND,
    as_batched,
    batch_size,
    below_vmap,
    eager_transform,
    functorch_interpreter,
    memory_budget,
    outside_transform,
    randomness,
    transform_kind,
    vmap_level,
)

_SCHEMA = "(SymInt[] size, *, Device device, Tensor? p=None, Tensor? after=None) -> Tensor"

# Kept alive: the operator goes when its library does.
_library = torch.library.Library("dropkit", "FRAGMENT")
_library.define("draw_v1" + _SCHEMA, tags=(torch.Tag.nondeterministic_seeded, torch.Tag.pt2_compliant_tag))
_operator = torch.ops.dropkit.draw_v1.default


def draw(device: torch.device, p: Tensor | None = None) -> Tensor:
    """A 0-d int64 key from the generator of `device`; if `p` holds 0 or 1 then 0, and nothing is drawn.

    With `p` on a GPU it is always drawn, since reading `p` would wait for the device.
    """
    if p is None and (transform := eager_transform()) is not None and not recompute.may_be_checkpointed():
        return _draw_under_transforms((), device, transform)
    if is_dynamo_compiling() or not recompute.may_be_checkpointed() or recompute.cannot_record_keys():
        return torch.ops.dropkit.draw_v1((), device=device, p=p)
    return recompute.same_key_when_recomputed(lambda: torch.ops.dropkit.draw_v1((), device=device, p=p), default=True)


def _draw_under_transforms(size: tuple[int, ...], device: torch.device, transform: Any) -> Tensor:
    """Draw in eager mode under torch.func's transforms, without the dispatcher, which takes 20 us for each.

    Args:
        transform: the interpreter of the innermost one; None if there is none.
    """
    if transform is None:
        return _draw(size, device, None)
    policy = randomness(transform) if transform_kind(transform) == VMAP_KIND else "same"
    _refuse_in_error_mode(policy)
    if policy == "different":
        size = batch_size(transform), *size
    with outside_transform():
        keys = _draw_under_transforms(size, device, functorch_interpreter())
    return as_batched(keys, 0, transform.level()) if policy == "different" else keys


def _refuse_in_error_mode(policy: str) -> None:
    if policy == "error":
        raise RuntimeError(
            "vmap: called random operation while in randomness error mode. Please either use the 'same' or "
            "'different' randomness flags on vmap or perform the randomness operation out of vmap"
        )


@torch.library.impl(_library, "draw_v1", "CompositeExplicitAutograd")
def _run(size: Sequence[int], *, device: torch.device, p: Tensor | None = None, after: Tensor | None = None) -> Tensor:
    size = size or ()  # AOTInductor passes None for no dimensions
    if recompute.may_be_checkpointed():
        return recompute.same_key_when_recomputed(lambda: _draw(size, device, p), default=True)
    return _draw(size, device, p)


def _draw(size: Sequence[int], device: torch.device, p: Tensor | None) -> Tensor:
    if p is not None and not p.is_cuda and p.item() in (0, 1):
        return torch.zeros(size, dtype=torch.int64, device=device)
    return torch.randint(LOWEST, HIGHEST, size, dtype=torch.int64, device=device)


def _fake(size: Sequence[int], *, device: torch.device, **_: Any) -> Tensor:
    return torch.empty(size, dtype=torch.int64, device=device)


torch.library.register_fake("dropkit::draw_v1", _fake, lib=_library)


@torch.library.impl(_library, "draw_v1", "FuncTorchVmapMode")
def _vmap(size: Sequence[int], *, device: torch.device, p: Tensor | None = None, after: Tensor | None = None) -> Tensor:
    """Follow vmap's `randomness`: one key for all slices, a key for each, or an error."""
    level: Any = vmap_level()
    policy: str = level.randomness()
    _refuse_in_error_mode(policy)
    with below_vmap():
        if policy == "same":
            return _operator(size, device=device, p=p, after=after)
        keys = _operator((level.batch_size(), *size), device=device, p=p, after=after)
    return as_batched(keys, 0, level.level())


_Record = Callable[..., Tensor]


@cast("Callable[[_Record], _Record]", _operator.py_impl(proxy_tensor.ProxyTorchDispatchMode))
def _record(
    mode: proxy_tensor.ProxyTorchDispatchMode,
    size: Sequence[int],
    *,
    device: torch.device,
    p: Tensor | None = None,
    after: Tensor | None = None,
) -> Tensor:
    """Record a draw in the graph of `mode`."""
    inductor.prepare()
    tracer: Any = mode.tracer
    if after is None:
        after = getattr(tracer, "_dropkit_drawn", None)
    arguments = {"device": device, "p": p, "after": after}
    key = cast("Any", proxy_tensor).proxy_call(mode, _operator, mode.pre_dispatch, (size,), arguments)
    tracer._dropkit_drawn = key
    keep(key, tracer)
    return key


def keep(key: Tensor, tracer: Any) -> None:
    """Mark a drawn key to be saved for the backward pass; any other is left alone.

    Called again where the key is used, since a checkpointed region marks each operator after it was recorded.
    """
    slot: Any = cast("Any", proxy_tensor).get_proxy_slot(key, tracer, None)
    if slot is not None and slot.proxy.node.target is _operator:
        slot.proxy.node.meta["recompute"] = _policy(slot.proxy.node)


def _policy(node: torch.fx.Node) -> CheckpointPolicy:
    """Always save the key, except under a memory budget of 0: it saves nothing, and restores the generator's state."""
    return CheckpointPolicy.MUST_RECOMPUTE if memory_budget(node) == 0 else CheckpointPolicy.MUST_SAVE
