"""Kinds: what the study compares. One more kind of dropout is one more entry in `KINDS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

import dropkit.nn


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of dropout.

    Attributes:
        name: as in the table and on the command line.
        element: from `p` to the module that stands after a linear layer.
        channel: from `p` to the module that stands after a convolution.
    """

    name: str
    element: Callable[[float], nn.Module]
    channel: Callable[[float], nn.Module]


NONE = Kind("none", nn.Identity, nn.Identity)
DROPKIT = Kind("dropkit", dropkit.nn.Dropout, dropkit.nn.Dropout2d)
TORCH = Kind("torch", nn.Dropout, nn.Dropout2d)

KINDS = {kind.name: kind for kind in (NONE, DROPKIT, TORCH)}


@dataclass(frozen=True, slots=True)
class Arm:
    """A kind at one rate: what one row of the table is about.

    Attributes:
        kind: where the modules come from.
        p: expected fraction dropped, in [0, 1].
    """

    kind: Kind
    p: float

    def element(self) -> nn.Module:
        return self.kind.element(self.p)

    def channel(self) -> nn.Module:
        return self.kind.channel(self.p)

    def __str__(self) -> str:
        return self.kind.name if self.kind == NONE else f"{self.kind.name} p={self.p:g}"


# Every other arm is compared with this one.
BASELINE = Arm(NONE, 0.0)
ARMS = (BASELINE, Arm(DROPKIT, 0.25), Arm(DROPKIT, 0.5), Arm(TORCH, 0.5))


def arms(names: Iterable[str] | None = None, rates: Iterable[float] | None = None) -> tuple[Arm, ...]:
    """The baseline, and each named kind at each rate; `ARMS` if neither is given.

    Args:
        names: from `KINDS`; those of `ARMS` if None.
        rates: those of `ARMS` if None.

    Raises:
        KeyError: a name is not in `KINDS`.
    """
    if names is None and rates is None:
        return ARMS
    kinds = [arm.kind for arm in ARMS] if names is None else [KINDS[name] for name in names]
    rates = [arm.p for arm in ARMS if arm != BASELINE] if rates is None else list(rates)
    return tuple(dict.fromkeys([BASELINE, *(Arm(kind, p) for kind in kinds if kind != NONE for p in rates)]))
