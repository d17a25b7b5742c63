"""Dropout that is applied again to its own result in every round of a loop.

The masks of the rounds multiply: the tenth round at p = 0.5 keeps one entry in a thousand, a thousand times as large.
The later rounds train on noise, and nothing warns. Give what is dropped a name of its own, so that every round begins
with the whole value.
"""

from __future__ import annotations

import ast
from bisect import bisect_left
from collections.abc import Iterator

from dropkit.catalog import FUNCTIONALS
from dropkit.facts.definitions import Binding
from dropkit.facts.drops import calls_that_may_drop, dropped, kind, looks_like_dropout
from dropkit.facts.finding import Severity
from dropkit.facts.module import Module, start, whole
from dropkit.facts.trace import Phase, Trace
from dropkit.rules.active import unless_meant
from dropkit.rules.rule import Example, Hit, Rule, Sight

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def find(module: Module) -> Iterator[Hit]:
    for call in calls_that_may_drop(module):
        target = _dropped_in_place(module, call)
        loop = _loop(module, call) if target is not None else None
        if target is None or loop is None or not _applies(module, call):
            continue
        if _compounds(module, loop, target, module.statement(call)):
            yield from unless_meant(module, Hit(module.statement(call)))


def _dropped_in_place(module: Module, call: ast.Call) -> str | None:
    """`x` for the statement `x = dropout(x)`."""
    match module.parent(call):
        case ast.Assign(targets=[ast.Name(id=target)], value=value) if value is call:
            given = dropped(call)
            return target if isinstance(given, ast.Name) and given.id == target else None
        case _:
            return None


def _applies(module: Module, call: ast.Call) -> bool:
    return kind(module, call) is not None or module.called(call) in FUNCTIONALS or looks_like_dropout(module, call)


def _loop(module: Module, call: ast.Call) -> ast.For | ast.AsyncFor | ast.While | None:
    """The innermost loop around `call` that comes round again."""

    def step(below: ast.AST, above: ast.AST) -> ast.AST | None:
        if isinstance(above, _SCOPES) or (isinstance(below, ast.stmt) and _leaves(module, module.block(below))):
            return module.tree  # no loop
        return above if isinstance(above, _LOOPS) and module.block(below) is above.body else None

    found = module.climb(module.remembered(_loop), call, step)
    return found if isinstance(found, _LOOPS) else None


def _leaves(module: Module, block: list[ast.stmt]) -> bool:
    """Whether a statement of a block ends it for good."""
    known = module.remembered(_leaves)
    if id(block) not in known:
        known[id(block)] = any(isinstance(one, (ast.Break, ast.Return, ast.Raise)) for one in block)
    return known[id(block)]


def _compounds(module: Module, loop: ast.AST, name: str, statement: ast.stmt) -> bool:
    """Whether the loop gives `name` no other value, and feeds it to something in every round."""
    function = module.function(statement)
    bindings = function.names.get(name, []) if function is not None else module.names.get(name, [])
    if len(_within(module, bindings, loop)) > 1:
        return False
    uses = [node for node in module.between(name, start(loop), whole(loop)) if module.statement(node) is not statement]
    return any(_feeds(module, node) for node in uses) and not any(_changes(module, node) for node in uses)


def _within(module: Module, bindings: list[Binding], loop: ast.AST) -> list[int]:
    """The first two lines of a loop on which a name is bound."""
    known = module.remembered(_within)
    if id(bindings) not in known:
        known[id(bindings)] = sorted(getattr(one.statement, "lineno", 0) for one in bindings)
    lines: list[int] = known[id(bindings)]
    first = bisect_left(lines, start(loop)[0])
    return [line for line in lines[first : first + 2] if line <= whole(loop)[0]]


def _feeds(module: Module, node: ast.Name) -> bool:
    """Whether a read is an operand or argument: not a test, a shape, or a part of a log message."""
    above = module.parent(node)
    return isinstance(above, (ast.Call, ast.BinOp, ast.Starred, ast.keyword, ast.Tuple, ast.List)) and not (
        isinstance(above, ast.Call) and getattr(above.func, "id", "") in ("print", "len", "isinstance", "id")
    )


def _changes(module: Module, node: ast.Name) -> bool:
    """Whether a use changes the value in place, `x[i] = ...` or `x.add_(...)`, or forgets it."""
    above = module.parent(node)
    if not isinstance(node.ctx, ast.Load):
        return True
    if isinstance(above, (ast.Subscript, ast.Attribute)) and not isinstance(above.ctx, ast.Load):
        return True
    return isinstance(above, ast.Attribute) and above.attr.endswith("_")


def see(trace: Trace) -> Iterator[Sight]:
    for site in trace.sites:
        again = [visit for visit in site.of(Phase.TRAIN) if visit.drew and visit.follows is site]
        lines = {visit.place for visit in site.of(Phase.TRAIN)}
        if again and len(lines) == 1:
            yield Sight(site, f"drops {len(again) + 1} times from its own result")


RULE = Rule(
    code="DRP303",
    name="loop-compounded-dropout",
    message="every round of the loop drops from the last one's result",
    severity=Severity.ERROR,
    find=find,
    see=see,
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
