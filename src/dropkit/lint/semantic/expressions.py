"""Small questions to single expressions."""

from __future__ import annotations

import ast


def argument(call: ast.Call, position: int | None, name: str) -> ast.expr | None:
    """The argument of `call` by name or by position; None where absent (or hidden in * or **)."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    if position is not None and position < len(call.args):
        if any(isinstance(one, ast.Starred) for one in call.args[: position + 1]):
            return None
        return call.args[position]
    return None


def unpacks(call: ast.Call) -> bool:
    """Whether arguments come from * or **, so that an absent one may be there."""
    return any(keyword.arg is None for keyword in call.keywords) or any(
        isinstance(one, ast.Starred) for one in call.args
    )


def self_attribute(node: ast.AST | None) -> str | None:
    """`x` for the expression `self.x`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None
