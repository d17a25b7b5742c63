"""The expressions of a function that are evaluated in a mode, and that matter.

A statement is live if it may change what the function returns, or an attribute that another function reads. Others log,
or keep numbers for a loss.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from functools import lru_cache
from typing import Any, cast

from dropkit.mc.training_flag.function_source import FunctionNode, FunctionSource, first_argument, names_read
from dropkit.mc.training_flag.known_values import Frame

# What is known of the tests of a function.
Truths = Mapping[ast.expr, bool | None]

# Statements after which the rest of a block does not run.
_LEAVING = (ast.Return, ast.Continue, ast.Break, ast.Raise)
# Functions that are called for their message.
_LOGGING = frozenset({"print", "debug", "info", "warning", "warn", "log", "log_dict", "add_scalar"})


def live_calls(frame: Frame, read_elsewhere: frozenset[str]) -> tuple[ast.Call, ...]:
    """Return the calls in live statements that may be evaluated in the mode of the frame.

    Args:
        read_elsewhere: attributes of the first argument that other functions read, each with a dot before it.
    """
    return _live_calls(frame.source, tuple(map(frame.truth, frame.source.tests)), read_elsewhere)


@lru_cache(maxsize=4096)
def _live_calls(
    source: FunctionSource, truths: tuple[bool | None, ...], read_elsewhere: frozenset[str]
) -> tuple[ast.Call, ...]:
    self, needed = first_argument(source.tree), set(read_elsewhere)
    statements, live = dict[ast.stmt, list[ast.AST]](), set[ast.stmt]()
    _collect(source.tree, None, dict(zip(source.tests, truths, strict=True)), statements)

    def is_live(statement: ast.stmt) -> bool:
        return statement not in live and _is_live(statement, statements[statement], needed, live, self)

    while more := [*filter(is_live, statements)]:
        live.update(more)
        needed.update(name for statement in more for name in names_read(statements[statement], self))
    nodes = {node for statement in live for node in statements[statement]}
    return tuple(node for node in ast.walk(source.tree) if isinstance(node, ast.Call) and node in nodes)


def _collect(node: ast.AST, statement: ast.stmt | None, truths: Truths, found: dict[ast.stmt, list[ast.AST]]) -> None:
    """Find the statements that may run, and the expressions of each; all that an inner function holds are its own."""
    for part in _evaluated(node, truths):
        if isinstance(part, ast.stmt) and not isinstance(statement, FunctionNode):
            found[part] = []
            _collect(part, part, truths, found)
        else:
            if statement is not None:
                found[statement].append(part)
            _collect(part, statement, truths, found)


def _evaluated(node: ast.AST, truths: Truths) -> Iterator[ast.AST]:
    """Yield the parts of a statement or an expression that may be evaluated, and matter."""
    left_out: tuple[str, ...] = ()
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            left_out = {None: (), True: ("test", "orelse"), False: ("test", "body")}[truths[test]]
        case ast.BoolOp():
            left_out = () if truths[node] is None else ("values",)
        case ast.BinOp(op=ast.Mult(), left=left, right=right):
            left_out = tuple(name for name, other in (("left", right), ("right", left)) if truths[other] is False)
        case _:
            pass
    for name, field in ast.iter_fields(node):
        parts: list[Any] = cast("list[Any]", field) if isinstance(field, list) else [field]
        for part in () if name in left_out else parts:
            match part:
                case ast.match_case(pattern=ast.MatchSingleton(value=value)) if isinstance(node, ast.Match):
                    if truths[node.subject] is not (not value):
                        yield part
                case ast.If(test=test, body=body, orelse=orelse):
                    yield part
                    taken = {None: [], True: body, False: orelse}[truths[test]]
                    if taken and isinstance(taken[-1], _LEAVING):
                        break
                case ast.AST():
                    yield part
                case _:
                    pass


def _is_live(
    statement: ast.stmt, nodes: list[ast.AST], needed: Set[str], live: Set[ast.stmt], self: str | None
) -> bool:
    match statement:
        case ast.Assert() | ast.Pass() | ast.Raise():
            return False
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="register_buffer"), args=[ast.Constant(value=name), *_])):
            return f".{name}" in needed
        case ast.Expr(value=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))):
            return name not in _LOGGING
        case ast.FunctionDef():
            return statement.name in needed
        case _ if any(isinstance(node, ast.NamedExpr) for node in nodes):
            return True
        case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            return any(name in needed for target in targets for name in _stored(target, self))
        case ast.If() | ast.While() | ast.For():
            stored = _stored(statement.target, self) if isinstance(statement, ast.For) else ()
            return any(name in needed for name in stored) or not live.isdisjoint((*statement.body, *statement.orelse))
        case _:
            return True


def _stored(target: ast.expr, self: str | None) -> Iterator[str]:
    """The names that are assigned or written into."""
    match target:
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                yield from _stored(part, self)
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == self:
            yield f".{attribute}"
        case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.Starred(value=value):
            yield from _stored(value, self)
        case ast.Name(id=name):
            yield name
        case _:
            pass
