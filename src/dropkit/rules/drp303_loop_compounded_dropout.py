"""Dropout that is applied to its own result in every iteration of a loop.

Later iterations train on noise, without a warning: the masks multiply, and with p = 0.5 the tenth iteration keeps one
element in a thousand, scaled by a thousand. Assign the result to another name, so that every iteration starts from the
complete value.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls, unseen_applications
from dropkit.lint.semantic.layers import input_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file, end, start
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, unless_intended
from dropkit.trace import Phase, Trace

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def check_source(source: SourceFile) -> Iterator[Violation]:
    dropouts = dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.APPLICATION)
    for call in (*(dropout.call for dropout in dropouts if _may_drop(dropout)), *unseen_applications(source)):
        target = _dropped_in_place(source, call)
        loop = _loop(source, call) if target is not None else None
        if target is not None and loop is not None and _compounds(source, loop, target, source.statement(call)):
            yield from unless_intended(source, Violation(source.statement(call)))


def _may_drop(dropout: DropoutCall) -> bool:
    """Whether it is a function, or a layer of one of torch's kinds whose rate is not zero."""
    return dropout.form is DropoutForm.FUNCTION or (dropout.kind is not None and not dropout.has_zero_rate)


def _dropped_in_place(source: SourceFile, call: ast.Call) -> str | None:
    """`x` for the statement `x = dropout(x)`."""
    match source.parent(call), input_of(call):
        case ast.Assign(targets=[ast.Name(id=target)]), ast.Name(id=dropped) if dropped == target:
            return target
        case _:
            return None


def _loop(source: SourceFile, call: ast.Call) -> ast.For | ast.AsyncFor | ast.While | None:
    """The innermost loop that may run `call` more than once."""

    def step(below: ast.AST, above: ast.AST) -> ast.AST | None:
        if isinstance(above, _SCOPES) or (isinstance(below, ast.stmt) and _leaves(source, source.block(below)[0])):
            return source.tree  # no loop
        return above if isinstance(above, _LOOPS) and source.block(below) is above.body else None

    loop = source.search_ancestors(call, step, _loop)
    return loop if isinstance(loop, _LOOPS) else None


@cached_per_file
def _leaves(source: SourceFile, first: ast.stmt) -> bool:
    """Whether the block that begins with `first` contains a statement that leaves the loop."""
    return any(isinstance(statement, (ast.Break, ast.Return, ast.Raise)) for statement in source.block(first))


def _compounds(source: SourceFile, loop: ast.AST, name: str, statement: ast.stmt) -> bool:
    """Whether the loop assigns `name` nothing else, and uses its value in every iteration."""
    uses = source.names_between(name, start(loop), end(loop))
    # The first other assignment ends the search: a loop may have thousands.
    if any(_is_modified(source, use) for use in uses if source.statement(use) is not statement):
        return False
    return any(_is_operand(source, use) for use in uses if source.statement(use) is not statement)


def _is_operand(source: SourceFile, node: ast.Name) -> bool:
    """Whether a name is an operand or an argument, not a part of a test, a shape or a message."""
    above = source.parent(node)
    return isinstance(above, (ast.Call, ast.BinOp, ast.Starred, ast.keyword, ast.Tuple, ast.List)) and not (
        isinstance(above, ast.Call) and getattr(above.func, "id", "") in ("print", "len", "isinstance", "id")
    )


def _is_modified(source: SourceFile, node: ast.Name) -> bool:
    """Whether a use assigns or deletes the name, or changes its value in place: `x[i] = ...`, `x.add_(...)`."""
    above = source.parent(node)
    target = above if isinstance(above, (ast.Subscript, ast.Attribute)) else node
    is_method_in_place = isinstance(target, ast.Attribute) and target.attr.endswith("_")
    return not isinstance(target.ctx, ast.Load) or is_method_in_place


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        again = [visit for visit in site.visits_in(Phase.TRAIN) if visit.is_active and visit.previous is site]
        lines = {visit.place for visit in site.visits_in(Phase.TRAIN)}
        if again and len(lines) == 1:
            yield TraceViolation(site, f"drops {len(again) + 1} times from its own result")


RULE = Rule(
    code="DRP303",
    name="loop-compounded-dropout",
    message="every iteration drops from the previous one's result",
    severity=Severity.ERROR,
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.heads = nn.ModuleList([nn.Linear(8, 2) for _ in range(4)])

    def forward(self, x):
        scores = []
        for head in self.heads:
            x = self.dropout(x)  # DRP303
            scores.append(head(x))
        return scores


Heads()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.heads = nn.ModuleList([nn.Linear(8, 2) for _ in range(4)])

    def forward(self, x):
        scores = []
        for head in self.heads:
            dropped = self.dropout(x)
            scores.append(head(dropped))
        return scores


Heads()(torch.randn(4, 8))
""",
        ),
    ),
)
