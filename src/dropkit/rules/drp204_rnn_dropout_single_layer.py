"""Dropout of a recurrent network that has only one layer.

Nothing is ever dropped, and the rate that was tuned has no effect. The `dropout` of LSTM, GRU and RNN acts between
stacked layers, and a single layer has no such place. torch warns when the network is built, which is easily missed in
a log. Stack layers, add a dropout layer after the network, or leave the argument out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import RNNS
from dropkit.diagnostics import Edit, Fix, Severity
from dropkit.lint.semantic.data_flow import reaching
from dropkit.lint.semantic.edits import drop_argument, replace
from dropkit.lint.semantic.expressions import argument, is_off, literal, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Trace

_NUM_LAYERS, _DROPOUT = 2, 5
# What chooses between rates: it asks for the number of layers, or for something else that is not known here.
_CHOICES = (ast.IfExp, ast.Compare, ast.BoolOp, ast.NamedExpr)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for call in source.calls_of(*RNNS):
        dropout = argument(call, _DROPOUT, "dropout")
        if dropout is None or unpacks(call):
            continue
        if _may_drop(source, dropout) and _has_one_layer(source, call):
            edit = _leave_out(source, call, dropout)
            yield Violation(call, fix=Fix("Leave dropout out", (edit,), safe=False) if edit is not None else None)


def _has_one_layer(source: SourceFile, call: ast.Call) -> bool:
    layers = argument(call, _NUM_LAYERS, "num_layers")
    return layers is None or _always(source, layers, 1)


def _may_drop(source: SourceFile, dropout: ast.expr) -> bool:
    """Whether a rate other than 0 may come in, whatever the number of layers."""
    values = [dropout]
    if isinstance(dropout, ast.Name):
        values += [binding.value for binding in reaching(source, dropout) if binding.value is not None]
    if any(isinstance(node, _CHOICES) for value in values for node in ast.walk(value)):
        return False
    return not is_off(dropout) and not _always(source, dropout, 0)


def _always(source: SourceFile, expression: ast.expr, number: int) -> bool:
    """Whether `expression` is `number`, or a name or attribute that is set to nothing else."""
    if isinstance(expression, ast.Constant):
        return literal(expression) == number
    attribute, owner = self_attribute(expression), source.owner(expression)
    if isinstance(expression, ast.Name):
        values = [None if binding.derived else binding.value for binding in source.bindings(expression)]
    elif attribute is not None and owner is not None and not owner.subclasses:
        writes = owner.all_writes(attribute)
        values = [None if write.derived else write.value for write in writes]
        stores = [node for node in source.attributes[attribute] if not isinstance(node.ctx, ast.Load)]
        if len(stores) > len(writes):
            return False  # It is set from outside, too.
    else:
        return False
    return bool(values) and all(literal(value) == number for value in values)


def _leave_out(source: SourceFile, call: ast.Call, dropout: ast.expr) -> Edit | None:
    for keyword in call.keywords:
        if keyword.value is dropout:
            return drop_argument(source, call, keyword)
    # By position others may follow it.
    return replace(source, dropout, "0.0")


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
