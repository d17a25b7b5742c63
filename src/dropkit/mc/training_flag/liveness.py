"""Liveness: which statements of a function may change what it returns; the others log, or keep numbers for a loss."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# What is called for its message.
_LOGS = frozenset({"print", "debug", "info", "warning", "warn", "log", "log_dict", "add_scalar"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def live_statements(function: ast.FunctionDef | ast.AsyncFunctionDef, read: frozenset[str]) -> set[ast.stmt]:
    """The statements that may matter; where it cannot be told, they do.

    Args:
        read: attributes of the first argument that other functions read, each with a dot before it.
    """
    given = [*function.args.posonlyargs, *function.args.args]
    first = given[0].arg if given else None
    rest = {node for node in ast.walk(function) if isinstance(node, ast.stmt) and node is not function}
    live: set[ast.stmt] = set()
    names = set(read)
    while found := {one for one in rest - live if _matters(one, names, live, first)}:
        live |= found
        names.update(name for one in found for name in _loaded(one, first))
    return live


def attributes_read(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Those of the first argument, each with a dot before it."""
    given = [*function.args.posonlyargs, *function.args.args]
    return {name for name in _loaded(function, given[0].arg) if name.startswith(".")} if given else set()


def _matters(statement: ast.stmt, names: set[str], live: set[ast.stmt], first: str | None) -> bool:
    match statement:
        case ast.Assert() | ast.Pass() | ast.Raise():
            return False
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="register_buffer"), args=[ast.Constant(value=name), *_])):
            return f".{name}" in names
        case ast.Expr(value=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))):
            return name not in _LOGS
        case _ if any(isinstance(one, ast.NamedExpr) for one in ast.walk(statement)):
            return True
        case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            return any(name in names for one in targets for name in _stored(one, first))
        case ast.If() | ast.While() | ast.For():
            named = isinstance(statement, ast.For) and any(name in names for name in _stored(statement.target, first))
            return named or any(one in live for one in (*statement.body, *statement.orelse))
        case _:
            return True


def _stored(target: ast.expr, first: str | None) -> Iterator[str]:
    """The names that are assigned or written into."""
    match target:
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for one in parts:
                yield from _stored(one, first)
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == first:
            yield f".{attribute}"
        case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.Starred(value=value):
            yield from _stored(value, first)
        case ast.Name(id=name):
            yield name
        case _:
            pass


def _loaded(node: ast.AST, first: str | None) -> Iterator[str]:
    """The names that the expressions of a statement read, or those of a whole function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and isinstance(node, ast.stmt) and not isinstance(node, _FUNCTIONS):
            continue
        match child:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=ast.Load()) if name == first:
                yield f".{attribute}"
            case ast.Name(id=name):
                yield name
            case _:
                pass
        yield from _loaded(child, first)
