"""Two dropouts on one value, with nothing in between.

They act as one dropout of a higher rate: two of p = 0.5 drop three entries in four. The rate that the model trains with
is not the one that anybody wrote, and the second mask costs time and memory. Remove one of the two.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.facts.drops import calls_that_may_drop, dropped, kind, made_kind
from dropkit.facts.edit import delete_statement, drop_argument, replace
from dropkit.facts.finding import Edit, Fix, Severity
from dropkit.facts.module import Module
from dropkit.facts.trace import Phase, Site, Trace, Visit
from dropkit.rules.rule import Example, Hit, Rule, Sight


def find(module: Module) -> Iterator[Hit]:
    for call in module.calls.get("Sequential", []):
        if module.called(call) == "torch.nn.Sequential":
            yield from _in_a_row(module, call)
    for call in calls_that_may_drop(module):
        hit = _nested(module, call) or _next(module, call)
        if hit is not None:
            yield hit


def _in_a_row(module: Module, sequential: ast.Call) -> Iterator[Hit]:
    for one, other in zip(sequential.args, sequential.args[1:], strict=False):
        if isinstance(one, ast.Call) and isinstance(other, ast.Call):
            first = made_kind(module, [one])
            if first is not None and first == made_kind(module, [other]):
                yield Hit(other, fix=_fix(drop_argument(module, sequential, other)))


def _nested(module: Module, call: ast.Call) -> Hit | None:
    """dropout(dropout(x))"""
    inner = dropped(call)
    if not isinstance(inner, ast.Call) or not _same(module, inner, call):
        return None
    return Hit(call, fix=_fix(replace(module, call, module.text.of(inner))))


def _next(module: Module, call: ast.Call) -> Hit | None:
    """x = dropout(x) in the statement behind one that binds x to a dropout, too."""
    statement = module.parent(call)
    if not isinstance(statement, ast.Assign) or statement.value is not call:
        return None
    block, index = module.position(statement)
    if index == 0:
        return None
    match dropped(call), block[index - 1], statement:
        case (
            ast.Name(id=given),
            ast.Assign(targets=[ast.Name(id=bound)], value=ast.Call() as earlier),
            ast.Assign(targets=[ast.Name(id=target)]),
        ) if given == bound == target and _same(module, earlier, call):
            return Hit(statement, fix=_fix(delete_statement(module, statement)))  # pyright: ignore[reportArgumentType]
        case _:
            return None


def _same(module: Module, one: ast.Call, other: ast.Call) -> bool:
    """Whether both drop alike: a mask over elements and one over channels may both be wanted."""
    first = kind(module, one)
    return first is not None and first == kind(module, other)


def _fix(edit: Edit | None) -> Fix | None:
    return Fix("Remove the second dropout", (edit,), safe=False) if edit is not None else None


def see(trace: Trace) -> Iterator[Sight]:
    for site in trace.sites:
        lines = {visit.place for visit in site.of(Phase.TRAIN)}
        for visit in site.of(Phase.TRAIN):
            before = visit.follows
            if visit.drew and before is not None and (before is not site or len(lines) > 1) and _alike(visit, before):
                yield Sight(site, f"a second dropout on what {before.label} has just dropped from")
                break


def _alike(visit: Visit, before: Site) -> bool:
    """Whether both have a coin for the same: elements and whole samples are often dropped one after the other."""
    return any(
        other.unit == visit.unit or (other.unit == other.shape and visit.unit == visit.shape)
        for other in before.of(Phase.TRAIN)
    )


RULE = Rule(
    code="DRP304",
    name="double-dropout",
    message="a second dropout on the value just dropped from",
    severity=Severity.WARNING,
    find=find,
    see=see,
    fix="remove the second dropout",
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        x = self.dropout(x)
        x = self.dropout(x)  # DRP304
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        x = self.dropout(x)
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
        Example(
            bad="""
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Dropout(0.2), nn.Linear(8, 2))  # DRP304

model(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2))

model(torch.randn(4, 8))
""",
        ),
    ),
)
