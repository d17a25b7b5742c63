"""Dropout directly before batch normalisation.

The model validates worse than it trains, without a warning. Dropout increases the variance of the inputs from which
batch normalisation learns its running variance. In evaluation their variance is smaller, so later layers get inputs on
another scale (Li et al., "Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift",
2019). Put dropout after the last batch normalisation, or after the activation.

Reported with severity info only: networks were published with this order, too, such as Wide ResNet, ConvE, and
discriminators like DCGAN's.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.catalog import BATCH_NORMS
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import origins
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_call, dropout_calls
from dropkit.lint.semantic.layers import operation
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import AFTER, adjacent_layer
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_NORM = "torch.nn.functional.batch_norm"


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in _before_norm(source):
        yield Violation(dropout.call)


def _before_norm(source: SourceFile) -> Iterator[DropoutCall]:
    for layer in dropout_calls(source, DropoutForm.LAYER):
        after = adjacent_layer(source, layer.call, AFTER) if layer.kind is not None else None
        if source.called(after) in BATCH_NORMS:
            yield layer
    for call in source.all_calls if source.calls_of(_NORM, *BATCH_NORMS) else ():
        norm = operation(source, call)
        if norm is None or not (norm.name == _NORM or (norm.layers and norm.name in BATCH_NORMS)):
            continue
        for origin in origins(source, norm.input):
            dropout = dropout_call(source, origin)
            if dropout is not None and dropout.is_standard and dropout.form is not DropoutForm.LAYER:
                yield dropout


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        for visit in site.visits_in(Phase.TRAIN):
            if visit.is_active and any(name.startswith("BatchNorm") for name in visit.consumers):
                ratio = visit.variance_ratio
                shift = f": it learns {ratio:.2f} times the variance of evaluation" if ratio else ""
                yield TraceViolation(site, f"before batch norm{shift}")
                break


RULE = Rule(
    code="DRP407",
    name="dropout-before-batchnorm",
    message="dropout before batch norm shifts the variance it learns",
    severity=Severity.INFO,
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.dropout = nn.Dropout(0.3)
        self.norm = nn.BatchNorm1d(16)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
-        x = torch.relu(self.norm(self.dropout(self.hidden(x))))  # DRP407
+        x = self.dropout(torch.relu(self.norm(self.hidden(x))))
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
        ),
    ),
)
