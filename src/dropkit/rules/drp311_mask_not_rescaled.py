"""Hand-written dropout that does not scale what it keeps.

The model evaluates worse than it trains, without a warning: in evaluation mode all units are there, so the sums that
the next layer reads are 1/(1-p) times as large as those it was trained with. Multiply by 1/(1-p) in training mode, as
`nn.Dropout` does, or by 1-p in evaluation mode.

Masks of elements and channels of hidden layers are reported. Noise on the input (of denoising autoencoders) and masks
of whole tokens and samples are often meant to be unscaled.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose, sqrt

from dropkit.diagnostics import Severity
from dropkit.rules.rule import Example, Rule, TraceViolation
from dropkit.trace import Phase, Site, Trace, Visit

# In standard deviations of the observed rate.
_BOUND = 6


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        visits = [visit for visit in site.visits_in(Phase.TRAIN) if visit.is_active]
        if visits and all(_is_unscaled(visit) for visit in visits) and not _is_scaled_in_eval(trace, site):
            yield TraceViolation(site)


def _is_unscaled(visit: Visit) -> bool:
    """Whether this is a mask of elements, or of features, on what a layer computed, that multiplies by 1."""
    is_by_hand = visit.function is None and visit.factor is not None
    on_layer = visit.origin.layer not in ("input", "parameter", "Embedding", "") and not visit.mask_kind
    features = 1 if len(visit.shape) >= 4 else len(visit.shape) - 1
    per_feature = len(visit.shape) == len(visit.mask_shape) > 1 and visit.mask_shape[features] == visit.shape[features]
    return is_by_hand and on_layer and per_feature and isclose(abs(visit.factor or 0), 1, rel_tol=1e-6)


def _is_scaled_in_eval(trace: Trace, site: Site) -> bool:
    """Whether evaluation multiplies something by the fraction that training keeps."""
    count = sum(visit.mask_elements for visit in site.visits_in(Phase.TRAIN))
    kept = 1 - (site.rate or 0)
    near = _BOUND * sqrt(kept * (1 - kept) / max(count, 1))
    rates = [1 - site.p] if site.p else []
    return any(abs(factor - kept) <= near or factor in rates for factor in trace.factors_in_eval - {1.0})


RULE = Rule(
    code="DRP311",
    name="mask-not-rescaled",
    message="hand-written dropout does not scale by 1/(1-p)",
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
-            x = x * (torch.rand_like(x) >= 0.5)
+            x = x * (torch.rand_like(x) >= 0.5) / 0.5
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
