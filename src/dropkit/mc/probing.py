"""Probing: two small passes that tell where the inputs lie at each site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dropkit.kernels.values import Rule
from dropkit.mc import layout
from dropkit.mc.layout import Layout
from dropkit.mc.sited import Sited
from dropkit.nn.layer import Unit


class _Probe(Sited):
    """Lets everything pass, and keeps what it saw; None where a mask is made of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[Tensor | torch.Size | None] = []

    def site(self, input: Tensor, p: float, rule: Rule, unit: Callable[[Tensor], Unit] | None, inplace: bool) -> Tensor:
        self.sites.append(input.clone())
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
    for probe, rolled in ((before, False), (after, True)):
        with probe:
            run(rolled)
    torch.set_rng_state(state)
    return [_layout(one, other, count) for one, other in zip(before.sites, after.sites, strict=False)]


def _layout(before: Tensor | torch.Size | None, after: Tensor | torch.Size | None, count: int) -> Layout | None:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return layout.find(before, after, count)
    return layout.by_shape(before, count) if isinstance(before, torch.Size) else None
