"""Two dropouts on one value, with nothing in between, or a ReLU at most.

The model trains with a higher rate than the code shows: two dropouts with p = 0.5 drop three elements of four. They act
like one dropout, and the second mask costs time and memory. Remove one of the two. ReLU and LeakyReLU keep zeros and
scale, so dropout on both sides of them is the same; an audit finds this.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls, dropout_kind
from dropkit.lint.semantic.edits import delete_statement, drop_argument, fix, replace
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Site, Trace, Visit

_TITLE = "Remove the second dropout"


def check_source(source: SourceFile) -> Iterator[Violation]:
    for sequential in source.calls_of("torch.nn.Sequential"):
        for layer, following in pairwise(sequential.args):
            if _same(source, layer, following):
                yield Violation(following, fix=fix(_TITLE, drop_argument(source, sequential, following)))
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.APPLICATION):
        call, statement = dropout.call, source.statement(dropout.call)
        if dropout.input is not None and _same(source, dropout.input, call):
            yield Violation(call, fix=fix(_TITLE, replace(source, call, source.text.of(dropout.input))))
        elif _repeats(source, statement, dropout):
            yield Violation(statement, fix=fix(_TITLE, delete_statement(source, statement)))


def _repeats(source: SourceFile, statement: ast.stmt, dropout: DropoutCall) -> bool:
    """Whether a statement is `x = dropout(x)`, directly after another such statement."""
    block, index = source.position(statement)
    match dropout.input, block[index - 1 : index + 1]:
        case (
            ast.Name(id=name),
            [
                ast.Assign(targets=[ast.Name(id=bound)], value=earlier),
                ast.Assign(targets=[ast.Name(id=target)], value=call),
            ],
        ):
            return call is dropout.call and name == bound == target and _same(source, earlier, call)
        case _:
            return False


def _same(source: SourceFile, first: ast.expr, second: ast.expr) -> bool:
    """Whether both are dropouts of one kind: dropping elements and then channels may be intended."""
    kind = dropout_kind(source, first)
    return kind is not None and kind == dropout_kind(source, second)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        lines = {visit.place for visit in site.visits_in(Phase.TRAIN)}
        for visit in site.visits_in(Phase.TRAIN):
            before = visit.previous
            is_other = before is not None and (before is not site or len(lines) > 1)
            if before is not None and is_other and visit.is_active and _alike(visit, before):
                through = f", through {visit.between}" if visit.between else ""
                yield TraceViolation(site, f"a second dropout on what {before.label} has just dropped from{through}")
                break


def _alike(visit: Visit, before: Site) -> bool:
    """Whether both have the same granularity: dropping elements and then whole samples is common."""
    return any(
        other.mask_shape == visit.mask_shape or (other.mask_shape == other.shape and visit.mask_shape == visit.shape)
        for other in before.visits_in(Phase.TRAIN)
    )


RULE = Rule(
    code="DRP304",
    name="double-dropout",
    message="a second dropout directly after another one",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
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
