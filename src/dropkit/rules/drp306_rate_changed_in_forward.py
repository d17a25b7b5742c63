"""A dropout rate that changes in the forward pass.

The rate that `print(model)` shows, and that is saved with the model's settings, is not the rate in use. Change rates in
the training loop, between steps, where a schedule is visible and can be resumed.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.rules.rule import Default, Example, Rule, TraceViolation
from dropkit.trace import Phase, Trace


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        rates = [visit.p for visit in site.visits_in(Phase.TRAIN) if visit.p is not None]
        before = site.p if site.is_module and site.p is not None else rates[0] if rates else None
        other = next((rate for rate in rates if rate != before), None)
        if other is not None and before is not None:
            yield TraceViolation(site, f"the rate is {before:g} before the call and {other:g} in it")


RULE = Rule(
    code="DRP306",
    name="rate-changed-in-forward",
    message="the rate changes in the forward pass",
    severity=Severity.INFO,
    default=Default.OFF,
    check_trace=check_trace,
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        self.dropout.p *= 0.9
        return self.output(self.dropout(torch.relu(self.hidden(x))))


Classifier()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        return self.output(self.dropout(torch.relu(self.hidden(x))))


model = Classifier()
model.dropout.p *= 0.9
model(torch.randn(4, 8))
""",
        ),
    ),
)
