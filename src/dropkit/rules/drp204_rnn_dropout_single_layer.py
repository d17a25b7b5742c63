"""Dropout of a recurrent network that has only one layer.

Nothing is ever dropped, and the rate that was tuned has no effect. The `dropout` of LSTM, GRU and RNN acts between
stacked layers, and a single layer has no such place. torch warns when the network is built, which is easily missed in
a log. Stack layers, add a dropout layer after the network, or leave the argument out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import RNNS
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import reaching
from dropkit.lint.semantic.edits import drop_argument, fix, replace
from dropkit.lint.semantic.expressions import argument, is_off, literal, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Trace

# What chooses between rates: it asks for the number of layers, or for something else that is not known here.
_CHOICES = (ast.IfExp, ast.Compare, ast.BoolOp, ast.NamedExpr)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for call in source.calls_of(*RNNS):
        layers, dropout = argument(call, 2, "num_layers"), argument(call, 5, "dropout")
        has_one_layer = layers is None or _is_always(source, layers, 1)
        if dropout is not None and not unpacks(call) and has_one_layer and _may_drop(source, dropout):
            keyword = next((keyword for keyword in call.keywords if keyword.value is dropout), None)
            # By position others may follow it.
            edit = drop_argument(source, call, keyword) if keyword is not None else replace(source, dropout, "0.0")
            yield Violation(call, fix=fix("Leave dropout out", edit))


def _may_drop(source: SourceFile, dropout: ast.expr) -> bool:
    """Whether a rate other than 0 may come in, whatever the number of layers."""
    bindings = reaching(source, dropout) if isinstance(dropout, ast.Name) else []
    values = [dropout, *(binding.value for binding in bindings if binding.value is not None)]
    is_chosen = any(isinstance(node, _CHOICES) for value in values for node in ast.walk(value))
    return not is_chosen and not is_off(dropout) and not _is_always(source, dropout, 0)


def _is_always(source: SourceFile, expression: ast.expr, number: int) -> bool:
    """Whether `expression` is `number`, or a name or attribute that is set to nothing else."""
    if isinstance(expression, ast.Constant):
        return literal(expression) == number
    values, attribute, owner = source.values(expression), self_attribute(expression), source.owner(expression)
    if attribute is not None and owner is not None:
        stores = [node for node in source.attributes[attribute] if not isinstance(node.ctx, ast.Load)]
        # Subclasses, and code outside of the class, may set it to something else.
        if owner.subclasses or len(stores) > len(values):
            return False
    return bool(values) and all(literal(value) == number for value in values)


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
            bad="""
import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.rnn = nn.LSTM(8, 16, num_layers=1, batch_first=True, dropout=p)  # DRP204

    def forward(self, x):
        return self.rnn(x)[0]


Encoder(0.5)(torch.randn(4, 5, 8))
""",
            good="""
import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.rnn = nn.LSTM(8, 16, num_layers=1, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


Encoder(0.5)(torch.randn(4, 5, 8))
""",
        ),
    ),
)
