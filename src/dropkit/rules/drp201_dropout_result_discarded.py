"""Dropout whose result is discarded.

Nothing is dropped, at any rate: the network trains without the regularisation that its code shows, and there is no
warning. `F.dropout(x, p)` and `self.dropout(x)` return a new tensor and leave `x` unchanged. Assign the result
(`x = self.dropout(x)`). Only dropout with `inplace=True` changes its input.

The fix makes dropout work, and so changes the numbers of the next training run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Edit, Fix, Severity
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_calls, has_zero_rate
from dropkit.lint.semantic.expressions import argument
from dropkit.lint.semantic.inside_tests import is_in_test
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import end, start
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace


def check_source(source: SourceFile) -> Iterator[Violation]:
    # Of a layer the flag may be set later: `model.dropout.inplace = True`.
    sets_inplace = any(isinstance(node.ctx, ast.Store) for node in source.attributes.get("inplace", []))
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.APPLICATION, DropoutForm.PER_CALL):
        call, statement = dropout.call, source.parent(dropout.call)
        if not isinstance(statement, ast.Expr) or source.function(call) is None or is_in_test(source, call):
            continue
        if all(has_zero_rate(source, layer.call) for layer in dropout.layers):
            continue
        if not dropout.may_work_in_place and not (sets_inplace and dropout.form is not DropoutForm.FUNCTION):
            yield Violation(call, fix=_fix(source, call, statement))


def _fix(source: SourceFile, call: ast.Call, statement: ast.Expr) -> Fix | None:
    """Assign the result to the input, if that is a local name which is read again."""
    input, function = argument(call, 0, "input"), source.function(call)
    if not isinstance(input, ast.Name) or function is None or input.id not in function.names:
        return None
    loops = [parent for parent in source.parents(call) if isinstance(parent, (ast.For, ast.AsyncFor, ast.While))]
    # Behind the call, or before it in the next round of a loop.
    is_read_later = any(
        start(read) > end(call) or any(start(loop) < start(read) < end(loop) for loop in loops)
        for read in source.reads_in(function.node, input.id)
        if read is not input
    )
    if not is_read_later:
        return None
    at = source.text.start(statement)
    return Fix("Assign the result", (Edit(at, at, f"{input.id} = "),), changes_training=True)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        visits = [visit for visit in site.visits_in(Phase.TRAIN) if visit.is_active and not visit.inplace]
        if visits and not any(visit.is_used for visit in visits) and not trace.stopped:
            yield TraceViolation(site)


RULE = Rule(
    code="DRP201",
    name="dropout-result-discarded",
    message="the result of dropout is thrown away: nothing is dropped",
    severity=Severity.ERROR,
    check_source=check_source,
    check_trace=check_trace,
    fix="assign the result: `x = F.dropout(x, ...)`",
    fix_is_safe=True,
    examples=(
        Example(
            """
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.2)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
-        self.dropout(x)  # DRP201
+        x = self.dropout(x)
        x = self.hidden(x)
-        F.dropout(x, 0.5, self.training)  # DRP201
+        x = F.dropout(x, 0.5, self.training)
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
