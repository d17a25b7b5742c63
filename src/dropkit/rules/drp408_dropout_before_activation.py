"""Dropout directly before an activation that does not keep its zeros or its scale.

Behind `nn.Sigmoid()` a dropped unit is 0.5, not 0, and behind GELU, tanh or ELU the kept ones, which dropout has made
larger, do not come out larger by the same factor: the mean that the next layer sees is one in training and another in
evaluation. Put dropout behind the activation. Before ReLU and its kin the order makes no difference, so it is not
reported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import ACTIVATION_KINDS, ACTIVATIONS, DROPOUT_MODULES, HOMOGENEOUS, HOMOGENEOUS_KINDS
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.data_flow import beside
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Default, Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

# The alpha kinds drop to the value that SELU saturates at, and keep mean and variance: they are made for another order.
_DROPOUTS = DROPOUT_MODULES - {"torch.nn.AlphaDropout", "torch.nn.FeatureAlphaDropout"}


def check_source(source: SourceFile) -> Iterator[Violation]:
    for name, calls in source.calls.items():
        if "Dropout" not in name:
            continue
        for call in calls:
            after = beside(source, call, 1) if source.called(call) in _DROPOUTS else None
            if after is not None and source.called(after) in ACTIVATIONS - HOMOGENEOUS:
                yield Violation(call, fix=_swap(source, call, after))


def _swap(source: SourceFile, dropout: ast.Call, activation: ast.Call) -> Fix | None:
    """Let the two change places, where they are arguments of one call or elements of one list."""
    if source.parent(dropout) is not source.parent(activation):
        return None
    edits = (replace(source, dropout, source.text.of(activation)), replace(source, activation, source.text.of(dropout)))
    return Fix("Put dropout behind the activation", edits, safe=False)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        used = {name for visit in site.visits_in(Phase.TRAIN) if visit.is_active for name in visit.consumers}
        crossed = sorted(used & (ACTIVATION_KINDS - HOMOGENEOUS_KINDS))
        if crossed and "alpha" not in site.kind.lower():
            yield TraceViolation(site, f"before {crossed[0]}, which does not keep zero or scale")


RULE = Rule(
    code="DRP408",
    name="dropout-before-activation",
    message="dropout before an activation that does not keep zero",
    severity=Severity.INFO,
    default=Default.OFF,
    check_source=check_source,
    check_trace=check_trace,
    fix="put dropout behind the activation",
    examples=(
        Example(
            bad="""
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(8, 16),
    nn.Dropout(0.3),  # DRP408
    nn.Sigmoid(),
    nn.Linear(16, 2),
)
model.eval()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(8, 16),
    nn.Sigmoid(),
    nn.Dropout(0.3),
    nn.Linear(16, 2),
)
model.eval()(torch.randn(4, 8))
""",
        ),
    ),
)
