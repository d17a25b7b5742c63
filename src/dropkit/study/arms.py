"""The arms of an experiment: no dropout, and each kind of dropout at each rate.

Another kind of dropout is one more entry in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

import dropkit.nn


@dataclass(frozen=True, slots=True)
class DropoutKind:
    """An implementation of dropout.

    Attributes:
        name: its name in the table and on the command line.
        element: makes the module that follows a linear layer, from the rate `p`.
        channel: makes the module that follows a convolution, from the rate `p`.
    """

    name: str
    element: Callable[[float], nn.Module]
    channel: Callable[[float], nn.Module]


NONE = DropoutKind("none", nn.Identity, nn.Identity)
DROPKIT = DropoutKind("dropkit", dropkit.nn.Dropout, dropkit.nn.Dropout2d)
TORCH = DropoutKind("torch", nn.Dropout, nn.Dropout2d)

KINDS = {kind.name: kind for kind in (NONE, DROPKIT, TORCH)}


@dataclass(frozen=True, slots=True)
class Arm:
    """A kind of dropout at one rate, which is one row of the table.

    Attributes:
        kind: the implementation.
        p: expected fraction dropped, in [0, 1].
    """

    kind: DropoutKind
    p: float

    def element(self) -> nn.Module:
        """Make the module that follows a linear layer."""
        return self.kind.element(self.p)

    def channel(self) -> nn.Module:
        """Make the module that follows a convolution."""
        return self.kind.channel(self.p)

    def __str__(self) -> str:
        return self.kind.name if self.kind == NONE else f"{self.kind.name} p={self.p:g}"


# All other arms are compared with this one.
BASELINE = Arm(NONE, 0.0)
ARMS = (BASELINE, Arm(DROPKIT, 0.25), Arm(DROPKIT, 0.5), Arm(TORCH, 0.5))


def arms(names: Iterable[str] | None = None, rates: Iterable[float] | None = None) -> tuple[Arm, ...]:
    """Return the baseline and each named kind at each rate; `ARMS` if neither is given.

    Args:
        names: keys of `KINDS`; the kinds of `ARMS` if None.
        rates: dropout rates; those of `ARMS` if None.

    Raises:
        KeyError: a name is not in `KINDS`.
    """
    if names is None and rates is None:
        return ARMS
    kinds = [arm.kind for arm in ARMS] if names is None else [KINDS[name] for name in names]
    rates = [arm.p for arm in ARMS if arm != BASELINE] if rates is None else list(rates)
    return tuple(dict.fromkeys([BASELINE, *(Arm(kind, p) for kind in kinds if kind != NONE for p in rates)]))
