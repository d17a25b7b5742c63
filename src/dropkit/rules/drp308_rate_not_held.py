"""A dropout whose observed rate differs from its `p`.

The model is regularised more or less than configured, without a warning. Causes are hand-written layers that confuse
the rates to keep and to drop, or that multiply masks, and block dropout on small feature maps. The observed rate is
compared with `p`, with a bound of six standard deviations for the number of mask elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

from dropkit.diagnostics import Severity
from dropkit.rules.rule import Example, Rule, TraceViolation
from dropkit.trace import Phase, Site, Trace

# In standard deviations; one run in half a billion deviates more by chance.
_BOUND = 6


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        rates = {visit.p for visit in site.visits_in(Phase.TRAIN) if visit.is_active and visit.is_independent}
        rate = site.rate
        p = rates.pop() if len(rates) == 1 else None
        if rate is not None and p is not None and 0 < p < 1 and not _within(rate, p, site):
            yield TraceViolation(site, f"drops {rate:.1%}, but p is {p:.1%}")


def _within(rate: float, p: float, site: Site) -> bool:
    count = sum(visit.mask_elements for visit in site.visits_in(Phase.TRAIN) if visit.dropped is not None)
    # Plus half an element, since the number of dropped elements is whole.
    return abs(rate - p) <= _BOUND * sqrt(p * (1 - p) / count) + 0.5 / count


RULE = Rule(
    code="DRP308",
    name="rate-not-held",
    message="the observed drop rate differs from p",
    severity=Severity.WARNING,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
from torch import nn


class ChannelDropout(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
-        keep = torch.rand(x.shape[:2]) < self.p
-        return x * keep[..., None, None] / self.p
+        keep = torch.rand(x.shape[:2]) >= self.p
+        return x * keep[..., None, None] / (1 - self.p)


nn.Sequential(nn.Conv2d(3, 64, 3), ChannelDropout(0.1), nn.Conv2d(64, 8, 3))(torch.randn(4, 3, 9, 9))
""",
        ),
    ),
)
