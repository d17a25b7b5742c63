"""Hand-written dropout with one mask for the whole batch.

Gradients are noisier than those of dropout, and the model trains worse: all samples of a step lose the same units, so a
batch averages over one pruned network and not over as many as it has samples. Draw a mask of the input's shape, or
with the batch dimension and 1 in place of the others.

Masks on weights, and those of block dropout and stochastic depth, which have such a mode, are not reported, nor are
masks that are shared along the first of three dimensions, which may be time.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.catalog import DROPOUT_PATHS, LAYER_DROP
from dropkit.diagnostics import Severity
from dropkit.rules.rule import Example, Rule, TraceViolation
from dropkit.trace import Phase, Trace, Visit


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        visits = [visit for visit in site.visits_in(Phase.TRAIN) if visit.is_active]
        is_meant = site.kind in DROPOUT_PATHS or site.kind == LAYER_DROP
        if visits and not is_meant and all(_is_shared(visit) for visit in visits):
            yield TraceViolation(site, f"one mask for all {visits[0].shape[0]} samples of the batch")


def _is_shared(visit: Visit) -> bool:
    """Whether a mask by hand, of several elements, is one for everything along the first dimension."""
    shape, mask_shape = visit.shape, visit.mask_shape
    if visit.function is not None or "parameter" in (visit.origin.last, visit.origin.layer):
        return False
    if len(shape) < 2 or len(mask_shape) != len(shape) or mask_shape[0] != 1 or shape[0] == 1:
        return False
    separate = sum(size > 1 for size in mask_shape)
    return separate == 1 or (separate > 1 and len(shape) != 3)


RULE = Rule(
    code="DRP310",
    name="mask-shared-by-batch",
    message="one hand-written mask for the whole batch",
    severity=Severity.WARNING,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 64)
        self.output = nn.Linear(64, 2)

    def forward(self, x):
        x = torch.relu(self.hidden(x))
        if self.training:
-            x = x * (torch.rand(64) >= 0.5) / 0.5
+            x = x * (torch.rand(len(x), 64) >= 0.5) / 0.5
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
