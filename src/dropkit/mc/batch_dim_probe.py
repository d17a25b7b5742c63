"""Probing: three small passes that tell where the inputs lie at each site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dropkit.mc import generators
from dropkit.mc.batch_dim import Layout, by_shape, fitting
from dropkit.mc.batches import Batch
from dropkit.mc.intercept import Draw, Sited, forked
from dropkit.torch_private import functorch_is_active

# What stood at a site: a tensor, the shape of a mask made by hand, a layout that is known, or nothing that can be told.
_Seen = Tensor | torch.Size | Layout | None


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of it.

    Attributes:
        layouts: of each site, in order; None where inputs cannot be told apart.
        alike: the sites where several fit, because what the inputs gave was alike.
    """

    layouts: list[Layout | None]
    alike: list[int]


class _Probe(Sited):
    """Lets everything pass, and keeps what it saw; None where a mask is made of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[_Seen] = []

    def site(self, input: Tensor, draw: Draw) -> Tensor:
        # Of a transform's tensor nothing is left when the transform has ended.
        self.sites.append(None if functorch_is_active() else draw.layout or input.detach().clone())
        if draw.inplace and not input.is_inference():
            # It would have been written.
            torch.autograd.graph.increment_version(input)
        return input

    def uniform(self, shape: torch.Size, device: torch.device) -> Tensor:
        self.sites.append(shape)
        return torch.full(shape, 0.5, dtype=torch.float64, device=device)

    def seeded(self, draw: Callable[[], Any]) -> Any:
        self.sites.append(None)
        return draw()


def probe(run: Callable[[Batch], Any], batch: Batch) -> Probed:
    """Find the layout of each site.

    Args:
        run: runs the model; may write over its inputs.
        batch: at least two inputs.
    """
    few = min(2, batch.count - 1)
    # Made first: the model may write over what it is given.
    one, rolled, part = (given.copied() for given in (batch, batch.rolled(), batch.take(0, few)))
    with forked(), generators.kept():
        before, after = _seen(run, one), _seen(run, rolled)
        try:
            fewer = _seen(run, part)
        except Exception:
            # A model may want batches of one size.
            fewer = []
    sizes = [_shape(seen) for seen in fewer] if len(fewer) == len(before) else [None] * len(before)
    found = [
        _layouts(one, other, batch.count, size, few) for one, other, size in zip(before, after, sizes, strict=False)
    ]
    return Probed([one[0] if one else None for one in found], [site for site, one in enumerate(found) if len(one) > 1])


def _seen(run: Callable[[Batch], Any], batch: Batch) -> list[_Seen]:
    mode = _Probe()
    with mode:
        run(batch)
    return mode.sites


def _shape(seen: _Seen) -> torch.Size | None:
    return seen.shape if isinstance(seen, Tensor) else seen if isinstance(seen, torch.Size) else None


def _layouts(before: _Seen, after: _Seen, count: int, fewer: torch.Size | None, few: int) -> list[Layout]:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return fitting(before, after, count, fewer, few)
    if isinstance(before, torch.Size):
        # Nothing rolls in it.
        return by_shape(before, count, fewer, few)[:1]
    return [before] if isinstance(before, Layout) else []
