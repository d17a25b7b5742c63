"""Dropout directly before an activation that does not preserve zeros or scale.

The next layer gets inputs with another mean in training than in evaluation. After `nn.Sigmoid()` a dropped unit is 0.5
instead of 0; GELU, tanh and ELU do not preserve the factor by which dropout scales the kept units. Put dropout after
the activation. ReLU and similar activations preserve both, so they are not reported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import ACTIVATION_KINDS, ACTIVATIONS, DROPOUT_MODULES, HOMOGENEOUS, HOMOGENEOUS_KINDS
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_calls
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import AFTER, adjacent_layer
from dropkit.rules.rule import Default, Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

# Without AlphaDropout, which has another purpose: it keeps mean and variance after SELU.
_DROPOUTS = DROPOUT_MODULES - {"torch.nn.AlphaDropout", "torch.nn.FeatureAlphaDropout"}


def check_source(source: SourceFile) -> Iterator[Violation]:
    for layer in dropout_calls(source, DropoutForm.LAYER):
        after = adjacent_layer(source, layer.call, AFTER) if layer.name in _DROPOUTS else None
        if after is not None and source.called(after) in ACTIVATIONS - HOMOGENEOUS:
            yield Violation(layer.call, fix=_swap(source, layer.call, after))


def _swap(source: SourceFile, dropout: ast.Call, activation: ast.Call) -> Fix | None:
    """Swap the two, if they are arguments of one call or elements of one list."""
    if source.parent(dropout) is not source.parent(activation):
        return None
    edits = (replace(source, dropout, source.text.of(activation)), replace(source, activation, source.text.of(dropout)))
    return Fix("Put dropout after the activation", edits, safe=False)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        activations = {name for visit in site.visits_in(Phase.TRAIN) if visit.is_active for name in visit.consumers}
        crossed = sorted(activations & (ACTIVATION_KINDS - HOMOGENEOUS_KINDS))
        if crossed and "alpha" not in site.kind.lower():
            yield TraceViolation(site, f"before {crossed[0]}, which does not preserve zeros or scale")


RULE = Rule(
    code="DRP408",
    name="dropout-before-activation",
    message="dropout before an activation that changes zeros or scale",
    severity=Severity.INFO,
    default=Default.OFF,
    check_source=check_source,
    check_trace=check_trace,
    fix="put dropout after the activation",
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
