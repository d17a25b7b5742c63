"""Liveness: which statements of a function may change what it returns; the others log, or keep numbers for a loss."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# Functions that are called for their message.
_LOGGING = frozenset({"print", "debug", "info", "warning", "warn", "log", "log_dict", "add_scalar"})
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def live_statements(function: FunctionNode, read_elsewhere: frozenset[str]) -> set[ast.stmt]:
    """The statements that may change the result; where that is unknown, they do.

    Args:
        read_elsewhere: attributes of the first argument that other functions read, each with a dot before it.
    """
    self = _first_argument(function)
    statements = {node for node in ast.walk(function) if isinstance(node, ast.stmt) and node is not function}
    live: set[ast.stmt] = set()
    needed = set(read_elsewhere)
    while more := {statement for statement in statements - live if _is_live(statement, needed, live, self)}:
        live |= more
        needed.update(name for statement in more for name in _loaded(statement, self))
    return live


def attributes_read(function: FunctionNode) -> set[str]:
    """The attributes of the first argument that a function reads, each with a dot before it."""
    self = _first_argument(function)
    return set() if self is None else {name for name in _loaded(function, self) if name.startswith(".")}


def _first_argument(function: FunctionNode) -> str | None:
    arguments = [*function.args.posonlyargs, *function.args.args]
    return arguments[0].arg if arguments else None


def _is_live(statement: ast.stmt, needed: set[str], live: set[ast.stmt], self: str | None) -> bool:
    match statement:
        case ast.Assert() | ast.Pass() | ast.Raise():
            return False
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="register_buffer"), args=[ast.Constant(value=name), *_])):
            return f".{name}" in needed
        case ast.Expr(value=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))):
            return name not in _LOGGING
        case _ if any(isinstance(node, ast.NamedExpr) for node in ast.walk(statement)):
            return True
        case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            return any(name in needed for target in targets for name in _stored(target, self))
        case ast.If() | ast.While() | ast.For():
            stored = _stored(statement.target, self) if isinstance(statement, ast.For) else ()
            return any(name in needed for name in stored) or any(
                inner in live for inner in (*statement.body, *statement.orelse)
            )
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


def _loaded(node: ast.AST, self: str | None) -> Iterator[str]:
    """The names that the expressions of a statement read, or those of a whole function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and isinstance(node, ast.stmt) and not isinstance(node, FunctionNode):
            continue
        match child:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=ast.Load()) if name == self:
                yield f".{attribute}"
            case ast.Name(id=name):
                yield name
            case _:
                pass
        yield from _loaded(child, self)
