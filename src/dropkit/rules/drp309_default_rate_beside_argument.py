"""A dropout layer with the default rate of 0.5, beside an argument for the rate.

The model drops half of the units, whatever rate is passed: a sweep over the rate compares noise, and `dropout=0` does
not switch dropout off. `nn.Dropout()` has `p=0.5`. Pass the argument on: `nn.Dropout(dropout)`.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.attribute_usage import is_admitted
from dropkit.lint.semantic.edits import add_argument, fix
from dropkit.lint.semantic.expressions import given
from dropkit.lint.semantic.inside_tests import is_in_test
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.rate_arguments import argument_for_defaults, default_layers
from dropkit.rules.rule import Example, Rule, Violation


def check_source(source: SourceFile) -> Iterator[Violation]:
    for owner in source.classes:
        rate = argument_for_defaults(source, owner) if owner.is_module else None
        for layer in default_layers(source, owner) if rate is not None else ():
            if rate is None or is_in_test(source, layer.call) or is_admitted(source, layer.call):
                continue
            edit = add_argument(source, layer.call, f"p={rate.arg}" if given(layer.call) else rate.arg)
            message = f"the rate is 0.5 here, not the argument {rate.arg}"
            yield Violation(layer.call, message, fix(f"Pass {rate.arg}", edit))


RULE = Rule(
    code="DRP309",
    name="default-rate-beside-argument",
    message="the rate is 0.5 here, not the one of the argument",
    severity=Severity.WARNING,
    check_source=check_source,
    fix="pass the argument: `nn.Dropout(dropout)`",
    examples=(
        Example(
            """
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self, width, dropout=0.1):
        super().__init__()
        self.hidden = nn.Linear(width, width)
-        self.dropout = nn.Dropout()  # DRP309
+        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 2)

    def forward(self, x):
        return self.output(self.dropout(torch.relu(self.hidden(x))))


Classifier(8, dropout=0.3)(torch.randn(4, 8))
""",
            unseen="an argument that was not kept leaves no trace",
        ),
    ),
)
