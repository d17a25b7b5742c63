"""Dropout directly before batch normalisation.

The model validates worse than it trains, without a warning. Dropout increases the variance of the inputs from which
batch normalisation learns its running variance. In evaluation their variance is smaller, so later layers get inputs on
another scale (Li et al., "Understanding the Disharmony between Dropout and Batch Normalization by Variance Shift",
2019). Put dropout after the last batch normalisation, or after the activation.

Published networks with this order (Wide ResNet, ConvE, discriminators like DCGAN's) are recognised by the names of
classes, and reported with severity info.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import BATCH_NORMS, DROPOUT_MODULES, FUNCTIONALS
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import beside, operation, origins
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_calls
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Default, Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_PUBLISHED = Vocabulary(r"wide|wrn|conv e|conve|(?:dc|w|c|s|r|sn|sa|ac|bi|big|info|style|cycle|star)?gan|discriminator")
_NAMED = re.compile(r"norm|bn|^b\d", re.IGNORECASE)
_DROPOUTS = DROPOUT_MODULES | frozenset(FUNCTIONALS)
_NORM = "torch.nn.functional.batch_norm"


def check_source(source: SourceFile) -> Iterator[Violation]:
    is_published = any(_PUBLISHED.has(class_.name) for class_ in source.classes)
    for violation in _violations(source):
        yield violation.as_information() if is_published else violation


def _violations(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.LAYER):
        after = beside(source, dropout.call, 1) if dropout.name in DROPOUT_MODULES else None
        if after is not None and source.called(after) in BATCH_NORMS:
            yield Violation(dropout.call)
    for name, calls in source.calls.items():
        if _NAMED.search(name):
            for call in calls:
                yield from (Violation(dropped) for dropped in _dropped_input(source, call))


def _dropped_input(source: SourceFile, call: ast.Call) -> Iterator[ast.expr]:
    """The dropouts that are the input of `call`, if that is a batch normalisation."""
    norm = operation(source, call)
    if norm is None or norm.input is None or not (norm.name == _NORM or (norm.layers and norm.name in BATCH_NORMS)):
        return
    for origin in origins(source, norm.input) or ():
        dropout = operation(source, origin) if origin is not None else None
        if origin is not None and dropout is not None and dropout.name in _DROPOUTS:
            yield origin


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        for visit in site.visits_in(Phase.TRAIN):
            if visit.is_active and any(name.startswith("BatchNorm") for name in visit.consumers):
                shift = (
                    f": it learns {visit.variance_ratio:.2f} times the variance of evaluation"
                    if visit.variance_ratio
                    else ""
                )
                yield TraceViolation(site, f"before batch norm{shift}")
                break


RULE = Rule(
    code="DRP407",
    name="dropout-before-batchnorm",
    message="dropout before batch norm shifts the variance it learns",
    severity=Severity.INFO,
    default=Default.OFF,
    check_source=check_source,
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
        self.dropout = nn.Dropout(0.3)
        self.norm = nn.BatchNorm1d(16)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.dropout(self.hidden(x))))  # DRP407
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
            good="""
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
        x = self.dropout(torch.relu(self.norm(self.hidden(x))))
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
        ),
    ),
)
