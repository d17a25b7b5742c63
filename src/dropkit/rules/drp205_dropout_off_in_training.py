"""Dropout that is off in training, too.

The network overfits as if it had no dropout, because it has none. `F.alpha_dropout` and `F.feature_alpha_dropout` have
`training=False` by default, unlike torch's other functions; a literal `training=False`, and a `train()` that leaves the
layer in evaluation mode, have the same effect. Pass `training=self.training`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_calls
from dropkit.lint.semantic.edits import add_argument
from dropkit.lint.semantic.expressions import unpacks
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION):
        call, owner, signature = dropout.call, source.owner(dropout.call), dropout.signature
        is_off_by_default = signature is not None and signature.training_default is False and dropout.training is None
        if is_off_by_default and owner is not None and owner.is_module and not unpacks(call):
            yield Violation(call, fix=_fix(source, call))


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        visits = list(site.visits_in(Phase.TRAIN))
        wanted = bool(site.p) and not site.is_frozen and not site.was_active(Phase.TRAIN, Phase.EVAL)
        if wanted and visits and all(visit.training is False for visit in visits):
            yield TraceViolation(site)


def _fix(source: SourceFile, call: ast.Call) -> Fix | None:
    name, owner = source.self_name(call), source.owner(call)
    edit = add_argument(source, call, f"training={name}.training") if name is not None else None
    if edit is None or owner is None:
        return None
    return Fix("Pass training=self.training", (edit,), safe=owner.has_mode, changes_training=True)


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
