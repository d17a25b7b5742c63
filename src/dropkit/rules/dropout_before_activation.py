"""Dropout directly before an activation that does not keep its zeros or its scale.

Behind `nn.Sigmoid()` a dropped unit is 0.5, not 0, and behind GELU, tanh or ELU the kept ones, which dropout has made
larger, do not come out larger by the same factor: the mean that the next layer sees is one in training and another in
evaluation. Put dropout behind the activation. Before ReLU and its kin the order makes no difference, so it is not
reported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import ACTIVATION_KINDS, ACTIVATIONS, DROPOUT_MODULES, HOMOGENEOUS, HOMOGENEOUS_KINDS
from dropkit.facts.edit import replace
from dropkit.facts.finding import Fix, Severity
from dropkit.facts.flow import beside
from dropkit.facts.module import Module
from dropkit.facts.trace import Phase, Trace
from dropkit.rules.rule import Default, Example, Hit, Rule, Sight

# The alpha kinds drop to the value that SELU saturates at, and keep mean and variance: they are made for another order.
_DROPOUTS = DROPOUT_MODULES - {"torch.nn.AlphaDropout", "torch.nn.FeatureAlphaDropout"}


def find(module: Module) -> Iterator[Hit]:
    for name, calls in module.calls.items():
        if "Dropout" not in name:
            continue
        for call in calls:
            after = beside(module, call, 1) if module.called(call) in _DROPOUTS else None
            if after is not None and module.called(after) in ACTIVATIONS - HOMOGENEOUS:
                yield Hit(call, fix=_swap(module, call, after))


def _swap(module: Module, dropout: ast.Call, activation: ast.Call) -> Fix | None:
    """Let the two change places, where they are arguments of one call or elements of one list."""
    if module.parent(dropout) is not module.parent(activation):
        return None
    edits = (replace(module, dropout, module.text.of(activation)), replace(module, activation, module.text.of(dropout)))
    return Fix("Put dropout behind the activation", edits, safe=False)


def see(trace: Trace) -> Iterator[Sight]:
    for site in trace.sites:
        used = {name for visit in site.of(Phase.TRAIN) if visit.drew for name in visit.before}
        crossed = sorted(used & (ACTIVATION_KINDS - HOMOGENEOUS_KINDS))
        if crossed and "alpha" not in site.kind.lower():
            yield Sight(site, f"before {crossed[0]}, which does not keep zero or scale")


RULE = Rule(
    code="DRP408",
    name="dropout-before-activation",
    message="dropout before an activation that does not keep zero",
    severity=Severity.INFO,
    default=Default.OFF,
    find=find,
    see=see,
    fix="put dropout behind the activation",
    examples=(
        Example(
            bad="""
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(8, 16),
    nn.Dropout(0.3),  # DRP408
    nn.Sigmoid(),
    nn.Linear(16, 2),
)
model.eval()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(8, 16),
    nn.Sigmoid(),
    nn.Dropout(0.3),
    nn.Linear(16, 2),
)
model.eval()(torch.randn(4, 8))
""",
        ),
    ),
)
