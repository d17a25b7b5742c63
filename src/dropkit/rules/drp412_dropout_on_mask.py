"""Dropout on a padding mask or an attention mask.

Positions that the mask admits are closed at random, and the open ones get a weight of 1/(1-p): the model sees other
inputs than meant, and attention to padding may open. With a mask of large negative numbers, dropout opens what it
closes. Apply dropout to the values, or to the attention weights, and leave masks as they are.

A tensor is taken for a mask if it holds zeros and very negative numbers, or if it holds zeros and ones and is then
multiplied with values or compared. Input features that are zeros and ones are not reported.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.rules.rule import Example, Rule, TraceViolation
from dropkit.trace import Phase, Trace, Visit

# What programs do with masks of zeros and ones.
_USES_OF_MASKS = frozenset(
    {"mul", "masked_fill", "where", "eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "rsub"}
)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        if any(visit.is_active and _is_on_mask(visit) for visit in site.visits_in(Phase.TRAIN)):
            yield TraceViolation(site)


def _is_on_mask(visit: Visit) -> bool:
    is_used_as_mask = visit.mask_kind == "binary" and set() < set(visit.consumers) <= _USES_OF_MASKS
    return is_used_as_mask or visit.mask_kind == "additive"


RULE = Rule(
    code="DRP412",
    name="dropout-on-mask",
    message="dropout on a mask of padding or attention",
    severity=Severity.WARNING,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=0)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(8, 2)

    def forward(self, tokens):
-        mask = self.dropout((tokens != 0).float())
-        x = self.embed(tokens) * mask.unsqueeze(-1)
+        mask = (tokens != 0).float()
+        x = self.dropout(self.embed(tokens)) * mask.unsqueeze(-1)
        return self.output(x.sum(1))


Encoder()(torch.tensor([[3, 5, 2, 0], [7, 1, 0, 0]]))
""",
        ),
    ),
)
