"""A flag, or another value that is not a probability, passed as the dropout rate.

In training every element becomes zero, so the layers before learn nothing; in evaluation nothing is dropped. There is
no warning. In `F.dropout(x, self.training)` the flag takes the place of the rate, and True counts as p = 1.
`nn.Dropout(True)` and a rate of 1 have the same effect; a rate below 0 or above 1 raises an error once the line runs.

The fix passes the flag as `training=self.training`. The rate is then the default, 0.5: check that this is intended.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator

from dropkit.diagnostics import Edit, Fix, Severity
from dropkit.lint.semantic.dropout_calls import dropout_call, rates
from dropkit.lint.semantic.edits import rename_keyword
from dropkit.lint.semantic.expressions import last_name, literal
from dropkit.lint.semantic.inside_tests import is_in_test
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_FLAGS = frozenset({"training", "is_training", "is_train"})


def check_source(source: SourceFile) -> Iterator[Violation]:
    for call, rate in rates(source):
        violation = _judge(source, call, rate)
        if violation is not None and not is_in_test(source, call):
            yield violation


def _judge(source: SourceFile, call: ast.Call, rate: ast.expr) -> Violation | None:
    number = _number(rate)
    if number is not None:
        if not 0 <= number <= 1:
            return Violation(rate, f"a rate of {number:g} is not in [0, 1]")
        return Violation(rate, "a rate of 1 drops everything", severity=Severity.WARNING) if number == 1 else None
    if isinstance(rate, ast.Constant) and isinstance(rate.value, bool):
        return Violation(rate, f"{rate.value} is not a rate: it counts as {int(rate.value)}")
    if not isinstance(rate, ast.Call) and last_name(rate) in _FLAGS:
        return Violation(rate, "the training flag is passed as the rate and counts as 1", _fix(source, call, rate))
    if isinstance(rate, ast.Compare) or (isinstance(rate, ast.UnaryOp) and isinstance(rate.op, ast.Not)):
        return Violation(rate, "a condition is passed as the rate and counts as 0 or 1")
    if isinstance(rate, ast.Name) and _is_switch(source, rate):
        return Violation(rate, f"{rate.id} is a bool, not a rate: it counts as 1 or 0")
    return None


def _number(rate: ast.expr) -> float | None:
    """The value of a literal number with its sign; None if it is not one."""
    sign = 1
    while isinstance(rate, ast.UnaryOp) and isinstance(rate.op, ast.USub):
        rate, sign = rate.operand, -sign
    if isinstance(rate, ast.Constant) and isinstance(rate.value, (int, float)) and not isinstance(rate.value, bool):
        try:
            return sign * float(rate.value)
        except OverflowError:
            return sign * math.inf
    return None


def _is_switch(source: SourceFile, name: ast.Name) -> bool:
    """Whether `name` is a parameter annotated as bool, True by default, or passed as True in this file."""
    bindings, function = source.bindings(name), source.function(name)
    if len(bindings) != 1 or function is None or _is_tested(source, name):
        return False
    parameter = bindings[0].statement
    if not isinstance(parameter, ast.arg) or parameter not in function.parameters:
        return False
    if isinstance(parameter.annotation, ast.Name):
        return parameter.annotation.id == "bool"
    callee = function.owner.name if function.owner is not None and function.name == "__init__" else function.name
    return literal(source.default(parameter)) is True or name.id in _passed_as_true(source, callee)


@cached_per_file
def _passed_as_true(source: SourceFile, callee: str) -> set[str | None]:
    """The keyword arguments that are True in any call of `callee`."""
    calls = source.calls.get(callee, [])
    return {keyword.arg for call in calls for keyword in call.keywords if literal(keyword.value) is True}


def _is_tested(source: SourceFile, name: ast.Name) -> bool:
    """Whether an enclosing condition tests more than the truth of `name`: it may let only numbers through."""

    def step(_: ast.AST, above: ast.AST) -> bool | None:
        return (isinstance(above, (ast.If, ast.IfExp)) and name.id in _names_in_test(source, above.test)) or None

    return bool(source.search_ancestors(name, step, (_is_tested, name.id)))


@cached_per_file
def _names_in_test(source: SourceFile, test: ast.expr) -> set[str]:
    """The names that are a part of a condition, not all of it."""
    names = (node for node in ast.walk(test) if isinstance(node, ast.Name))
    return {node.id for node in names if not isinstance(source.parent(node), (ast.If, ast.IfExp))}


def _fix(source: SourceFile, call: ast.Call, rate: ast.expr) -> Fix | None:
    dropout = dropout_call(source, call)
    if (
        dropout is None
        or dropout.default_training is None
        or not dropout.name.startswith("torch.nn.functional.")
        or not (isinstance(rate, ast.Attribute) and rate.attr == "training")
        or call.args[2:]
    ):
        return None
    keyword = next((keyword for keyword in call.keywords if keyword.value is rate), None)
    at = source.text.start(rate)
    edit = rename_keyword(source, keyword, "training") if keyword is not None else Edit(at, at, "training=")
    return Fix("Pass the flag as training=", (edit,), changes_training=True)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        given = [site.p, *(visit.p for visit in site.visits)]
        if any(isinstance(rate, bool) for rate in given):
            yield TraceViolation(site, "a flag is passed as the rate: True drops everything")
        elif (outside := next((rate for rate in given if rate is not None and not 0 <= rate <= 1), None)) is not None:
            yield TraceViolation(site, f"the rate must be between 0 and 1, got {outside:g}")
        elif any(visit.p == 1 and visit.training is not False for visit in site.visits_in(Phase.TRAIN)):
            yield TraceViolation(site, "the rate is 1: nothing is kept", Severity.WARNING)


RULE = Rule(
    code="DRP301",
    name="training-flag-as-rate",
    message="the value passed as the rate is not a probability",
    severity=Severity.ERROR,
    check_source=check_source,
    check_trace=check_trace,
    fix="pass the flag as `training=self.training`",
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
        self.output = nn.Linear(8, 2)

    def forward(self, x):
-        x = F.dropout(self.hidden(x), self.training)  # DRP301
+        x = F.dropout(self.hidden(x), training=self.training)
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
