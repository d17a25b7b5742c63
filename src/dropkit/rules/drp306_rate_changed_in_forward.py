"""A dropout rate that changes in the forward pass.

The rate that `print(model)` shows, and that is saved with the model's settings, is not the rate in use. Change rates in
the training loop, between steps, where a schedule is visible and can be resumed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.callees import methods_run
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_call, dropout_calls
from dropkit.lint.semantic.expressions import last_name, literal, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

# What layers call their rate.
_RATES = ("p", "drop_prob")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for layer, statement in _rates_set(source):
        if _runs_in_forward(source, statement) and _is_dropout(source, layer):
            yield Violation(statement)
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.ATTENTION):
        owner = source.owner(dropout.call)
        for attribute in _attributes(dropout.p) if owner is not None and dropout.p is not None else ():
            for write in owner.all_writes(attribute)[:MOST] if owner is not None else ():
                if _runs_in_forward(source, write.statement):
                    yield Violation(write.statement)


def _rates_set(source: SourceFile) -> Iterator[tuple[ast.expr, ast.stmt]]:
    """The objects whose rate this file sets, and the statements that do."""
    for name in _RATES:
        for node in source.attributes.get(name, []):
            if isinstance(node.ctx, ast.Store):
                yield node.value, source.statement(node)
    for call in source.calls.get("setattr", []):
        if len(call.args) == 3 and literal(call.args[1]) in _RATES:
            yield call.args[0], source.statement(call)


def _attributes(rate: ast.expr) -> set[str]:
    """The attributes of self in a rate: `self.p`, `self.p if self.training else 0.0`."""
    return {name for node in ast.walk(rate) if (name := self_attribute(node)) is not None and name != "training"}


def _runs_in_forward(source: SourceFile, node: ast.AST) -> bool:
    function, owner = source.function(node), source.module(node)
    return function is not None and owner is not None and function.method in _run_by_forward(source, owner)


@cached_per_file
def _run_by_forward(source: SourceFile, owner: ClassDefinition) -> set[FunctionDefinition]:
    """The methods that `forward` calls, itself or through others."""
    forward = owner.method("forward")
    return set(methods_run(source, owner, forward)) if forward is not None else set()


def _is_dropout(source: SourceFile, layer: ast.expr) -> bool:
    """Whether an object is a dropout layer: an attribute of self that is set to one, one of several, or a loop's."""
    if isinstance(layer, ast.Subscript):
        return _is_dropout(source, layer.value)
    attribute, owner = self_attribute(layer), source.owner(layer)
    if attribute is not None and owner is not None:
        return any(value is not None and _makes_dropout(source, value) for value in owner.values(attribute)[:MOST])
    if not isinstance(layer, ast.Name):
        return False
    if (source.function(layer), layer.id) in _tested(source):
        return True
    loops = [
        binding.value for binding in source.bindings(layer)[:MOST] if binding.derived and binding.value is not None
    ]
    return any(
        _is_dropout(source, part) for loop in loops for part in ast.walk(loop) if isinstance(part, ast.Attribute)
    )


@cached_per_file
def _tested(source: SourceFile) -> set[tuple[FunctionDefinition | None, str]]:
    """The local names, with their functions, that `isinstance` tests for a dropout layer."""
    tests = [call for call in source.calls.get("isinstance", []) if call.args and "Drop" in source.text.of(call)]
    return {(source.function(test), last_name(test.args[0])) for test in tests}


@cached_per_file
def _makes_dropout(source: SourceFile, value: ast.expr) -> bool:
    made = (dropout_call(source, node) for node in ast.walk(value))
    return any(dropout is not None and dropout.form is DropoutForm.LAYER for dropout in made)


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
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
-        self.dropout.p *= 0.9  # DRP306
        return self.output(self.dropout(torch.relu(self.hidden(x))))


-Classifier()(torch.randn(4, 8))
+model = Classifier()
+model.dropout.p *= 0.9
+model(torch.randn(4, 8))
""",
        ),
    ),
)
