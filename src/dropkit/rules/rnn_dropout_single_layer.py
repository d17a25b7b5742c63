"""Dropout of a recurrent network that has one layer only.

The `dropout` of LSTM, GRU and RNN stands between stacked layers: with one layer there is no such place, nothing is ever
dropped, and the rate that was tuned or passed on has no effect. torch says so in a warning when the network is built,
which is easily lost in a log. Stack layers, put a dropout layer behind the network, or leave the argument out.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import RNNS
from dropkit.facts.edit import drop_argument, replace
from dropkit.facts.expressions import argument, self_attribute, unpacks
from dropkit.facts.finding import Edit, Fix, Severity
from dropkit.facts.flow import reaching
from dropkit.facts.module import Module
from dropkit.facts.trace import Trace
from dropkit.rules.rule import Example, Hit, Rule, Sight

_NUM_LAYERS, _DROPOUT = 2, 5
# What chooses between rates: it asks for the number of layers, or for something else that is not known here.
_CHOICES = (ast.IfExp, ast.Compare, ast.BoolOp, ast.NamedExpr)


def find(module: Module) -> Iterator[Hit]:
    for calls in (module.calls.get(name.rsplit(".", 1)[-1], []) for name in RNNS):
        for call in calls:
            if module.called(call) not in RNNS or unpacks(call):
                continue
            dropout = argument(call, _DROPOUT, "dropout")
            if dropout is not None and _may_drop(module, dropout) and _one_layer(module, call):
                edit = _leave_out(module, call, dropout)
                yield Hit(call, fix=Fix("Leave dropout out", (edit,), safe=False) if edit is not None else None)


def _one_layer(module: Module, call: ast.Call) -> bool:
    layers = argument(call, _NUM_LAYERS, "num_layers")
    return layers is None or _always(module, layers, 1)


def _may_drop(module: Module, dropout: ast.expr) -> bool:
    """Whether a rate other than 0 may come in, whatever the number of layers."""
    values = [dropout]
    if isinstance(dropout, ast.Name):
        values += [one.value for one in reaching(module, dropout) if one.value is not None]
    if any(isinstance(node, _CHOICES) for value in values for node in ast.walk(value)):
        return False
    return not (isinstance(dropout, ast.Constant) and not dropout.value) and not _always(module, dropout, 0)


def _always(module: Module, expression: ast.expr, number: int) -> bool:
    """Whether `expression` is `number`, or a name or attribute that is set to nothing else."""
    if isinstance(expression, ast.Constant):
        return expression.value == number
    attribute, owner = self_attribute(expression), module.owner(expression)
    if isinstance(expression, ast.Name):
        bindings = module.bindings(expression)
        values = [None if one.derived else one.value for one in bindings]
    elif attribute is not None and owner is not None and not owner.heirs:
        writes = [write for one in owner.lineage for write in one.writes.get(attribute, [])]
        values = [None if write.derived else write.value for write in writes]
        outside = [node for node in module.attributes[attribute] if not isinstance(node.ctx, ast.Load)]
        if len(outside) > len(writes):
            return False
    else:
        return False
    return bool(values) and all(isinstance(one, ast.Constant) and one.value == number for one in values)


def _leave_out(module: Module, call: ast.Call, dropout: ast.expr) -> Edit | None:
    for keyword in call.keywords:
        if keyword.value is dropout:
            return drop_argument(module, call, keyword)
    # By position others may follow it.
    return replace(module, dropout, "0.0")


def see(trace: Trace) -> Iterator[Sight]:
    return (Sight(site) for site in trace.sites if site.layers == 1 and site.p)


RULE = Rule(
    code="DRP204",
    name="rnn-dropout-single-layer",
    message="dropout between layers, and there is one layer only",
    severity=Severity.WARNING,
    find=find,
    see=see,
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
