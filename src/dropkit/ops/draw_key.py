"""Drawing keys where a compiler, a transform or a mode looks on: an operator that each of them treats as random.

Compilers merge equal calls, change their order and run them again for the backward pass; each of the three would be
another mask. Two things prevent it, both written where a graph is recorded: a draw takes the draw before it as an
argument, so that no two are equal and their order is one of data, and its eight bytes are marked to be saved, never to
be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.fx.experimental import proxy_tensor
from torch.utils.checkpoint import CheckpointPolicy

from dropkit.ops import inductor, recompute
from dropkit.ops.inductor import HIGHEST, LOWEST
from dropkit.torch_private import as_batched, below_vmap, memory_budget, vmap_level

_SCHEMA = "(SymInt[] size, *, Device device, Tensor? p=None, Tensor? after=None) -> Tensor"

# Kept alive: the operator goes when its library does.
_library = torch.library.Library("dropkit", "FRAGMENT")
_library.define("draw_v1" + _SCHEMA, tags=(torch.Tag.nondeterministic_seeded, torch.Tag.pt2_compliant_tag))
_operator = torch.ops.dropkit.draw_v1.default


def draw(device: torch.device, p: Tensor | None = None) -> Tensor:
    """A 0-d int64 key from the generator of `device`; if `p` holds 0 or 1 then 0, and nothing is drawn."""
    if is_dynamo_compiling() or not recompute.possible() or recompute.watched():
        return torch.ops.dropkit.draw_v1((), device=device, p=p)
    return recompute.keyed(lambda: torch.ops.dropkit.draw_v1((), device=device, p=p), default=True)


@torch.library.impl(_library, "draw_v1", "CompositeExplicitAutograd")
def _run(size: Sequence[int], *, device: torch.device, p: Tensor | None = None, after: Tensor | None = None) -> Tensor:
    size = size or ()  # AOTInductor hands None for no dimensions
    if recompute.possible():
        return recompute.keyed(lambda: _drawn(size, device, p), default=True)
    return _drawn(size, device, p)


def _drawn(size: Sequence[int], device: torch.device, p: Tensor | None) -> Tensor:
    if p is not None and p.item() in (0, 1):
        return torch.zeros(size, dtype=torch.int64, device=device)
    return torch.randint(LOWEST, HIGHEST, size, dtype=torch.int64, device=device)


def _fake(size: Sequence[int], *, device: torch.device, **_: Any) -> Tensor:
    return torch.empty(size, dtype=torch.int64, device=device)


torch.library.register_fake("dropkit::draw_v1", _fake, lib=_library)


@torch.library.impl(_library, "draw_v1", "FuncTorchVmapMode")
def _vmap(size: Sequence[int], *, device: torch.device, p: Tensor | None = None, after: Tensor | None = None) -> Tensor:
    """vmap's `randomness`: one key for all slices, a key for each, or an error."""
    level: Any = vmap_level()
    randomness: str = level.randomness()
    if randomness == "error":
        raise RuntimeError(
            "vmap: called random operation while in randomness error mode. Please either use the 'same' or "
            "'different' randomness flags on vmap or perform the randomness operation out of vmap"
        )
    with below_vmap():
        if randomness == "same":
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
    """Write a draw into the graph that `mode` records."""
    inductor.prepare()
    tracer: Any = mode.tracer
    if after is None:
        after = getattr(tracer, "_dropkit_drawn", None)
    arguments = {"device": device, "p": p, "after": after}
    key = cast("Any", proxy_tensor).proxy_call(mode, _operator, mode.pre_dispatch, (size,), arguments)
    node = cast("Any", proxy_tensor).get_proxy_slot(key, tracer).proxy.node
    node.meta["recompute"] = _policy(node)
    tracer._dropkit_drawn = key
    return key


def _policy(node: torch.fx.Node) -> CheckpointPolicy:
    """Saved always, but under a memory budget of 0, which saves nothing: there the generator's state is restored."""
    return CheckpointPolicy.MUST_RECOMPUTE if memory_budget(node) == 0 else CheckpointPolicy.MUST_SAVE
