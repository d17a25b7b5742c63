"""One dropout layer that is called in several places.

Results are correct, since each call has its own mask. But all calls share one rate and one name: the rate of one place
cannot be tuned, hooks cannot tell the calls apart, and `print(model)` shows fewer dropouts than there are. A separate
layer for each place costs nothing.

Two calls in one function, as in the two branches of a transformer layer, are usual and not reported.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.rules.rule import Default, Example, Rule, TraceViolation
from dropkit.trace import Phase, Trace

# Transformer layers share one dropout between their two branches.
_USUAL = 2


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        places = {visit.place for visit in site.visits_in(Phase.TRAIN) if visit.previous is not site} - {None}
        functions = {(place.file, place.function) for place in places if place is not None}
        if site.is_module and (len(places) > _USUAL or len(functions) > 1):
            yield TraceViolation(site, f"one layer, called from {len(places)} lines")


RULE = Rule(
    code="DRP410",
    name="shared-dropout-layer",
    message="one dropout layer is called in several places",
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
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 16)
        self.third = nn.Linear(16, 16)
        self.output = nn.Linear(16, 2)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.dropout(torch.relu(self.first(x)))
        x = self.dropout(torch.relu(self.second(x)))
        x = self.dropout(torch.relu(self.third(x)))
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 16)
        self.third = nn.Linear(16, 16)
        self.output = nn.Linear(16, 2)
        self.after_first = nn.Dropout(0.5)
        self.after_second = nn.Dropout(0.5)
        self.after_third = nn.Dropout(0.5)

    def forward(self, x):
        x = self.after_first(torch.relu(self.first(x)))
        x = self.after_second(torch.relu(self.second(x)))
        x = self.after_third(torch.relu(self.third(x)))
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
