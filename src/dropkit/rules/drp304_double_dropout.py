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
from dropkit.lint.semantic.data_flow import origins
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_call, dropout_calls, dropout_kind
from dropkit.lint.semantic.edits import delete_statement, drop_argument, fix, replace
from dropkit.lint.semantic.layers import constructors, input_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import AFTER, BEFORE, end_layer
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Site, Trace, Visit

_TITLE = "Remove the second dropout"


def check_source(source: SourceFile) -> Iterator[Violation]:
    for sequential in source.calls_of("torch.nn.Sequential"):
        for layer, following in pairwise(
            layer for layer in sequential.args if source.called(layer) != "torch.nn.Identity"
        ):
            if _same(source, layer, following):
                yield Violation(following, fix=fix(_TITLE, drop_argument(source, sequential, following)))
    for call in _applications(source):
        before = [_end_dropout(source, origin, BEFORE) for origin in origins(source, input_of(call))]
        first = _end_dropout(source, call, AFTER)
        if first is not None and all(dropped is not None and _same(source, dropped, first) for dropped in before):
            yield _violation(source, call, first)


def _applications(source: SourceFile) -> Iterator[ast.Call]:
    """The calls that drop, and the calls of a Sequential that begins with a dropout."""
    dropouts = {dropout.call for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.APPLICATION)}
    return (call for call in source.all_calls if call in dropouts or (dropouts and _is_row(source, call)))


def _is_row(source: SourceFile, call: ast.Call) -> bool:
    return source.called(call) is None and any(
        source.called(made) == "torch.nn.Sequential" for made in constructors(source, call.func)
    )


def _violation(source: SourceFile, call: ast.Call, first: ast.Call) -> Violation:
    """Report the statement `x = dropout(x)`, or a call whose input is written in it."""
    input_ = input_of(call)
    match source.parent(call), input_:
        case ast.Assign(targets=[ast.Name(id=target)]) as statement, ast.Name(id=name) if name == target:
            return Violation(statement, fix=fix(_TITLE, delete_statement(source, statement) if first is call else None))
        case _:
            edit = replace(source, call, source.text.of(input_)) if first is call and input_ is not None else None
            return Violation(call, fix=fix(_TITLE, edit))


def _end_dropout(source: SourceFile, call: ast.expr | None, step: int) -> ast.Call | None:
    """The dropout that `call` applies; of a Sequential its last layer, or for AFTER its first."""
    if not isinstance(call, ast.Call):
        return None
    dropout = dropout_call(source, call)
    if dropout is not None:
        return call if dropout.form in (DropoutForm.FUNCTION, DropoutForm.APPLICATION) else None
    ends = [end_layer(source, made, step) for made in constructors(source, call.func)]
    return ends[0] if len(ends) == 1 and dropout_call(source, ends[0]) is not None else None


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
            """
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        x = self.dropout(x)
-        x = self.dropout(x)  # DRP304
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
        Example(
            """
import torch
from torch import nn

-model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Dropout(0.2), nn.Linear(8, 2))  # DRP304
+model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 2))

model(torch.randn(4, 8))
""",
        ),
    ),
)
