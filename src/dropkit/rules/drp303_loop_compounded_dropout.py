"""Dropout that is applied to its own result in every iteration of a loop.

Later iterations train on noise, without a warning: the masks multiply, and with p = 0.5 the tenth iteration keeps one
element in a thousand, scaled by a thousand. Assign the result to another name, so that every iteration starts from the
complete value.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls, unseen_applications
from dropkit.lint.semantic.expressions import names_in
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
        names = _dropped_name(source, call)
        loop = _loop(source, call) if names is not None else None
        if names is not None and loop is not None and _compounds(source, loop, *names, source.statement(call)):
            yield from unless_intended(source, Violation(source.statement(call)))


def _may_drop(dropout: DropoutCall) -> bool:
    """Whether it is a function, or a layer of one of torch's kinds whose rate is not zero."""
    return dropout.form is DropoutForm.FUNCTION or (dropout.kind is not None and not dropout.has_zero_rate)


def _dropped_name(source: SourceFile, call: ast.Call) -> tuple[str, str] | None:
    """`x` and `y` for the statement `y = dropout(x)`."""
    match source.parent(call), input_of(call):
        case ast.Assign(targets=[ast.Name(id=target)]), ast.Name(id=dropped):
            return dropped, target
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


def _compounds(source: SourceFile, loop: ast.AST, name: str, target: str, statement: ast.stmt) -> bool:
    """Whether iterations of the loop begin with the result of the one before, and each uses the value."""
    uses = source.names_between(name, start(loop), end(loop))
    if name != target:
        results = source.names_between(target, start(loop), end(loop))
        if len(uses) + len(results) > MOST or not _is_handed_on(source, uses, results, statement):
            return False
        uses += results
    # The first assignment that always runs ends the search: a loop may have thousands.
    others = (use for use in uses if source.statement(use) is not statement)
    if any(
        _is_modified(source, use) and not _hands_on(source, use, target) and not _may_be_skipped(source, use, loop)
        for use in others
    ):
        return False
    return any(_is_operand(source, use) for use in uses if source.statement(use) is not statement)


def _is_handed_on(source: SourceFile, uses: list[ast.Name], results: list[ast.Name], statement: ast.stmt) -> bool:
    """Whether `x = y` follows `y = dropout(x)` in the same block, and nothing else binds `y`."""
    others = [use for use in results if source.statement(use) is not statement]
    return not any(_is_modified(source, use) for use in others) and any(
        _hands_on(source, use, results[0].id)
        and source.block(source.statement(use)) is source.block(statement)
        and start(use) > end(statement)
        for use in uses
    )


def _hands_on(source: SourceFile, use: ast.Name, target: str) -> bool:
    """Whether `use` is bound by a statement `x = target`."""
    match source.parent(use):
        case ast.Assign(targets=[bound], value=ast.Name(id=value)):
            return bound is use and value == target
        case _:
            return False


def _may_be_skipped(source: SourceFile, use: ast.Name, loop: ast.AST) -> bool:
    """Whether an assignment is in one branch of an `if`, whose test is the same in all iterations."""
    changing = _bound_in(source, loop)
    for parent in source.parents(use):
        if parent is loop:
            return False
        if isinstance(parent, ast.If):
            block = source.block(source.statement(use))
            other = parent.orelse if block is parent.body else parent.body
            is_constant = not any(isinstance(node, ast.Call) for node in ast.walk(parent.test))
            return not other and is_constant and changing.isdisjoint(names_in(parent.test))
        if not isinstance(parent, (ast.expr, ast.Assign, ast.AugAssign)):
            return False
    return False


@cached_per_file
def _bound_in(_: SourceFile, loop: ast.AST) -> set[str]:
    """The names that a loop binds."""
    return {node.id for node in ast.walk(loop) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}


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
            """
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
-            x = self.dropout(x)  # DRP303
-            scores.append(head(x))
+            dropped = self.dropout(x)
+            scores.append(head(dropped))
        return scores


Heads()(torch.randn(4, 8))
""",
        ),
    ),
)
