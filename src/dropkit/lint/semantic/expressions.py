"""Read arguments, names and literals from single expressions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

# Returned by `literal` for an expression that is not a constant.
UNKNOWN: Final = object()


def argument(call: ast.Call, position: int | None, name: str) -> ast.expr | None:
    """The argument of `call` by name or by position; None if it is absent, or hidden in * or **."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    if position is not None and position < len(call.args):
        if any(isinstance(argument, ast.Starred) for argument in call.args[: position + 1]):
            return None
        return call.args[position]
    return None


def given(call: ast.Call) -> list[ast.expr]:
    """The arguments of `call`: those by position, then those by name."""
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def unpacks(call: ast.Call) -> bool:
    """Whether * or ** pass arguments that cannot be seen."""
    return any(keyword.arg is None for keyword in call.keywords) or any(
        isinstance(argument, ast.Starred) for argument in call.args
    )


def self_attribute(node: ast.AST | None) -> str | None:
    """`x` for the expression `self.x`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None


def literal(node: ast.AST | None) -> object:
    """The value of a constant; UNKNOWN for any other expression, and for None."""
    return node.value if isinstance(node, ast.Constant) else UNKNOWN


def is_off(node: ast.AST | None) -> bool:
    """Whether an argument is a literal 0, False or None: a rate or a flag that drops nothing."""
    return not literal(node)


def is_none(node: ast.AST | None) -> bool:
    """Whether an expression is absent, as in `return`, or a literal None."""
    return node is None or literal(node) is None


def last_name(node: ast.AST | None) -> str:
    """The last part of the name of `node`, or of what it calls, as it is written; empty where it has none."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def names_in(node: ast.AST) -> Iterator[str]:
    """The names and attributes in an expression or a statement, as they are written."""
    return (last_name(part) for part in ast.walk(node) if isinstance(part, (ast.Name, ast.Attribute)))


def has_docstring(body: list[ast.stmt]) -> bool:
    """Whether a body begins with a docstring."""
    return bool(body) and isinstance(body[0], ast.Expr) and isinstance(literal(body[0].value), str)


def names_bound(node: ast.AST) -> set[str]:
    """The names that are set in an expression or a statement."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


def last_part(dotted: str) -> str:
    """`Dropout` of `torch.nn.Dropout`."""
    return dotted.rpartition(".")[2]
