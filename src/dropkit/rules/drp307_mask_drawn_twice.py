"""One mask, drawn twice.

Two layers, two calls or two machines that drop the same units are one random experiment and not two: the noise does
not average out, and over many steps the network learns the pattern. It happens where a generator is seeded again
inside the step, and where every process of a distributed run was seeded alike and sees the same masks on different
data. Seed once, before the model is built, and with the rank where there are several.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.rules.rule import Example, Rule, TraceViolation
from dropkit.trace import Phase, Site, Trace

# Bits of chance that two masks must have, not to be equal by accident.
_ENOUGH = 64


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    if trace.ranks_draw_alike:
        yield TraceViolation("", "every rank draws the same masks: seed with the rank")
    if trace.is_reseeded:
        yield TraceViolation("", "a generator is seeded in the forward: every step draws the same masks")
    first: dict[tuple[object, ...], Site] = {}
    for site in trace.sites:
        for visit in site.visits_in(Phase.TRAIN):
            if visit.mask_start is None or visit.has_given_key or visit.entropy < _ENOUGH:
                continue
            mask = visit.mask_shape, visit.mask_start
            if mask in first:
                other = first[mask]
                whose = "its own mask again" if other is site else f"the mask of {other.label}"
                yield TraceViolation(site, f"draws {whose}: is a generator seeded inside the step?")
                break
            first[mask] = site


RULE = Rule(
    code="DRP307",
    name="mask-drawn-twice",
    message="the same mask is drawn twice",
    severity=Severity.WARNING,
    check_trace=check_trace,
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32, 32)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        torch.manual_seed(0)
        return x + self.dropout(self.linear(x))


nn.Sequential(Block(), Block())(torch.randn(4, 32))
""",
            good="""
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32, 32)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return x + self.dropout(self.linear(x))


torch.manual_seed(0)
nn.Sequential(Block(), Block())(torch.randn(4, 32))
""",
        ),
    ),
)
