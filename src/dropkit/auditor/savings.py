"""What `dropkit.install()` would save: our kernel, timed on the shapes of the model's own dropouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from time import perf_counter

import torch

from dropkit.catalog import RATE_HOLDERS
from dropkit.kernels.params import inverted
from dropkit.nn.layer import coin_steps
from dropkit.ops import autograd
from dropkit.trace import Phase, Site, Visit

# Bytes that a dropout of ours keeps for backward: its key.
_KEY = 8
_REPEATS = 3
_LARGEST = 2**26


@dataclass(frozen=True, slots=True)
class Savings:
    """A step's worth: seconds of forward and backward, bytes held between them."""

    seconds: float
    bytes: int


def savings(sites: Sequence[Site]) -> Savings:
    """What those dropouts cost now, less what they would cost on our kernel; never less than nothing."""
    reached = [visit for site in sites for visit in site.of(Phase.TRAIN) if _is_reached(site, visit)]
    counts = Counter((visit.shape, visit.unit, visit.dtype) for visit in reached)
    ours = sum(_seconds(*case) * count for case, count in counts.items())
    seconds = sum(visit.seconds for visit in reached) - ours
    held = sum(visit.kept_bytes - _KEY for visit in reached if visit.kept_bytes)
    return Savings(max(seconds, 0.0), max(held, 0))


def _is_reached(site: Site, visit: Visit) -> bool:
    """Whether torch's own dropout drew this on the CPU; masks drawn by hand stay as they are."""
    torchs = visit.function is not None or site.kind in RATE_HOLDERS
    return visit.drew and torchs and visit.operator == "bernoulli" and visit.device == "cpu"


def _seconds(shape: tuple[int, ...], unit: tuple[int, ...], dtype: str) -> float:
    """Forward and backward, which cost the same."""
    size = prod(shape)
    scale = max(size / _LARGEST, 1.0)
    if scale > 1 or len(shape) != len(unit):
        shape, unit = (min(size, _LARGEST),), (min(size, _LARGEST),)
    steps = None if shape == unit else coin_steps(unit)
    input = torch.zeros(shape, dtype=getattr(torch, dtype))
    times: list[float] = []
    with torch.no_grad():
        for _ in range(_REPEATS):
            begin = perf_counter()
            autograd.drop(input, 0, inverted(0.5), steps)
            times.append(perf_counter() - begin)
    return 2 * scale * min(times)
