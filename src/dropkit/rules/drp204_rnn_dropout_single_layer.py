"""Dropout of a recurrent network that has only one layer.

Nothing is ever dropped, and the rate that was tuned has no effect. The `dropout` of LSTM, GRU and RNN acts between
stacked layers, and a single layer has no such place. torch warns when the network is built, which is easily missed in
a log. Stack layers, add a dropout layer after the network, or leave the argument out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import RNNS
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import reaching
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_names import is_rate_name
from dropkit.lint.semantic.edits import drop_argument, fix, replace
from dropkit.lint.semantic.expressions import argument, is_off, literal, names_in, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Trace

# Names of a number of layers.
_LAYERS = re.compile("layer|depth|stack", re.IGNORECASE)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for call in source.calls_of(*RNNS):
        layers, dropout = argument(call, 2, "num_layers"), argument(call, 5, "dropout")
        if dropout is None or unpacks(call) or not _may_drop(source, dropout):
            continue
        if layers is None or _is_always(source, layers, 1):
            keyword = next((keyword for keyword in call.keywords if keyword.value is dropout), None)
            # By position others may follow it.
            edit = drop_argument(source, call, keyword) if keyword is not None else replace(source, dropout, "0.0")
            yield Violation(call, fix=fix("Leave dropout out", edit))
        elif _is_one_by_default(source, layers):
            violation = Violation(call, "by default there is one layer, and no dropout between layers")
            is_made = bool(source.calls.get(owner.name, [])) if (owner := source.owner(call)) is not None else False
            yield violation if is_made or _drops_by_default(source, dropout) else violation.as_information()


def _may_drop(source: SourceFile, dropout: ast.expr) -> bool:
    """Whether a rate other than 0 may come in, whatever the number of layers."""
    bindings = reaching(source, dropout) if isinstance(dropout, ast.Name) else []
    values = [dropout, *(binding.value for binding in bindings if binding.value is not None)]
    may_ask = any(_may_ask_for_layers(source, node) for value in values for node in ast.walk(value))
    return not may_ask and not is_off(dropout) and not _is_always(source, dropout, 0)


def _may_ask_for_layers(source: SourceFile, choice: ast.AST) -> bool:
    """Whether a choice between rates may depend on the number of layers: on anything but the rate, or a switch."""
    match choice:
        case ast.IfExp(test=test, body=body, orelse=orelse):
            rates = {*names_in(body), *names_in(orelse)}
        case ast.Compare() as test if not isinstance(source.parent(choice), (ast.IfExp, ast.BoolOp, ast.UnaryOp)):
            rates = set[str]()
        case ast.NamedExpr():
            return True
        case _:
            return False
    comparisons = [node for node in ast.walk(test) if isinstance(node, (ast.Compare, ast.Call))]
    compared = {name for comparison in comparisons for name in names_in(comparison)} - rates - {"self", "p"}
    return any(map(_LAYERS.search, names_in(test))) or not all(map(is_rate_name, compared))


def _is_always(source: SourceFile, expression: ast.expr, number: int) -> bool:
    """Whether `expression` is `number`, or a name or attribute that is set to nothing else."""
    if isinstance(expression, ast.Constant):
        return literal(expression) == number
    values, attribute, owner = source.values(expression), self_attribute(expression), source.owner(expression)
    if attribute is not None and owner is not None:
        stores = [
            node
            for node in source.attributes[attribute]
            if not isinstance(node.ctx, ast.Load) and not _is_of_other_class(source, node, owner)
        ]
        # Subclasses, and code outside of the class, may set it to something else.
        if owner.subclasses or len(stores) > len(values):
            return False
    return bool(values) and all(literal(value) == number for value in values)


def _is_of_other_class(source: SourceFile, node: ast.Attribute, owner: ClassDefinition) -> bool:
    """Whether it is an attribute of self in a class from which `owner` inherits nothing."""
    other = source.owner(node) if self_attribute(node) is not None else None
    return other is not None and other not in owner.mro


def _is_one_by_default(source: SourceFile, layers: ast.expr) -> bool:
    """Whether the number of layers is an argument of the constructor that is 1 by default and that no call passes."""
    function, owner = source.function(layers), source.owner(layers)
    default = _default(source, layers)
    if not isinstance(layers, ast.Name) or owner is None or function is None or literal(default) != 1:
        return False
    place = [parameter.arg for parameter in function.parameters].index(layers.id)
    calls = source.calls.get(owner.name, [])
    is_passed = any(unpacks(call) or argument(call, place - 1, layers.id) is not None for call in calls)
    return not is_passed and not owner.subclasses


def _drops_by_default(source: SourceFile, dropout: ast.expr) -> bool:
    """Whether the rate is a number above 0, or an argument that is one by default and serves for RNNs alone."""
    names = [name for name in ast.walk(dropout) if isinstance(name, ast.Name)]
    others = [
        use
        for name in names
        if (function := source.function(name)) is not None
        for use in source.reads_in(function.node, name.id)
        if not any(source.called(parent) in RNNS for parent in source.parents(use))
    ]
    values = [dropout, *(_default(source, name) for name in names)]
    return not others and any(isinstance(value, ast.Constant) and not is_off(value) for value in values)


def _default(source: SourceFile, name: ast.expr) -> ast.expr | None:
    """The default of the parameter of a constructor that a name, bound once, stands for."""
    function, owner = source.function(name), source.owner(name)
    is_argument = owner is not None and function is owner.methods.get("__init__") and isinstance(name, ast.Name)
    bindings = function.names.get(name.id, []) if is_argument and function is not None else []  # pyright: ignore
    return source.default(bindings[0].statement) if len(bindings) == 1 else None


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    return (TraceViolation(site) for site in trace.sites if site.layers == 1 and site.p)


RULE = Rule(
    code="DRP204",
    name="rnn-dropout-single-layer",
    message="dropout between layers, and there is one layer only",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="leave `dropout` out",
    examples=(
        Example(
            """
import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self, p):
        super().__init__()
-        self.rnn = nn.LSTM(8, 16, num_layers=1, batch_first=True, dropout=p)  # DRP204
+        self.rnn = nn.LSTM(8, 16, num_layers=1, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


Encoder(0.5)(torch.randn(4, 5, 8))
""",
        ),
    ),
)
