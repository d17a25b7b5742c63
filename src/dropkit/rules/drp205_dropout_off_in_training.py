"""Dropout that is off in training, too.

The network overfits as if it had no dropout, because it has none. `F.alpha_dropout` and `F.feature_alpha_dropout` have
`training=False` by default, unlike torch's other functions; a literal `training=False`, and a `train()` that leaves the
layer in evaluation mode, have the same effect. Pass `training=self.training`.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_calls
from dropkit.lint.semantic.edits import pass_training
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION):
        if dropout.default_training is False and source.module(dropout.call) is not None:
            yield Violation(dropout.call, fix=pass_training(source, dropout, changes_training=True))


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        visits = list(site.visits_in(Phase.TRAIN))
        wanted = bool(site.p) and not site.is_frozen and not site.was_active(Phase.TRAIN, Phase.EVAL)
        if wanted and visits and all(visit.training is False for visit in visits):
            yield TraceViolation(site)


RULE = Rule(
    code="DRP205",
    name="dropout-off-in-training",
    message="this dropout is off in training too",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="pass `training=self.training`",
    fix_is_safe=True,
    examples=(
        Example(
            bad="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        x = F.alpha_dropout(F.selu(self.hidden(x)), 0.1)  # DRP205
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
            good="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        x = F.alpha_dropout(F.selu(self.hidden(x)), 0.1, training=self.training)
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
