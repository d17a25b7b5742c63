"""The same dropout mask in two layers, two calls or two processes.

Regularisation is weaker than intended: equal masks do not average out, and over many steps the network learns their
pattern. The cause is a generator that is seeded within the step, or distributed processes with equal seeds, which use
equal masks on different data. Seed once, before the model is built. On several processes keep one seed, and let
`dropkit.shard.data_parallel()` give each its part of the mask that one process would use, or
`dropkit.shard.different_masks()` another mask to each; or include the rank in the seed.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.rules.rule import Example, Rule, TraceViolation
from dropkit.trace import Phase, Site, Trace

# Masks with fewer bits of entropy may be equal by chance.
_ENOUGH = 64


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    if trace.ranks_draw_alike:
        yield TraceViolation("", "all ranks use the same masks: see dropkit.shard, or include the rank in the seed")
    if trace.is_reseeded:
        yield TraceViolation("", "a generator is seeded in forward: every step uses the same masks")
    first: dict[tuple[object, ...], Site] = {}
    for site in trace.sites:
        for visit in site.visits_in(Phase.TRAIN):
            if visit.mask_start is None or visit.has_given_key or visit.entropy < _ENOUGH:
                continue
            mask = visit.mask_shape, visit.mask_start
            if mask in first:
                other = first[mask]
                which = "its previous mask" if other is site else f"the mask of {other.label}"
                yield TraceViolation(site, f"uses {which}: is a generator seeded within the step?")
                break
            first[mask] = site


RULE = Rule(
    code="DRP307",
    name="mask-drawn-twice",
    message="the same mask is used twice",
    severity=Severity.WARNING,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32, 32)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
-        torch.manual_seed(0)
        return x + self.dropout(self.linear(x))


+torch.manual_seed(0)
nn.Sequential(Block(), Block())(torch.randn(4, 32))
""",
        ),
    ),
)
