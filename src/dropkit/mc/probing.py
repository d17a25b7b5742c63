"""Probing: two small passes that tell where the inputs lie at each site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dropkit.mc.layout import Layout, by_shape, find
from dropkit.mc.sited import Draw, Sited

# What stood at a site: a tensor, the shape of a mask made by hand, a layout that is known, or nothing that can be told.
_Seen = Tensor | torch.Size | Layout | None


class _Probe(Sited):
    """Lets everything pass, and keeps what it saw; None where a mask is made of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[_Seen] = []

    def site(self, input: Tensor, draw: Draw) -> Tensor:
        self.sites.append(draw.layout or input.clone())
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


def layouts(run: Callable[[bool], Any], count: int) -> list[Layout | None]:
    """The layout of each site, in order.

    Args:
        run: runs the model on `count` inputs; on the same, rolled by one, if its argument is true.
        count: at least 2.
    """
    before, after = _Probe(), _Probe()
    state = torch.get_rng_state()
    try:
        for probe, rolled in ((before, False), (after, True)):
            with probe:
                run(rolled)
    finally:
        torch.set_rng_state(state)
    return [_layout(one, other, count) for one, other in zip(before.sites, after.sites, strict=False)]


def _layout(before: _Seen, after: _Seen, count: int) -> Layout | None:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return find(before, after, count)
    if isinstance(before, torch.Size):
        return by_shape(before, count)
    return before if isinstance(before, Layout) else None
