"""Code that tries something out, where a misuse is there to be seen: tests, and blocks that expect an error."""

from __future__ import annotations

import ast
import re

from dropkit.facts.module import Module

_EXPECTS = re.compile(r"raises|warns|expect|suppress", re.IGNORECASE)
_TRIES = re.compile(r"test|bench|profil|warm_?up", re.IGNORECASE)


def is_trial(module: Module, node: ast.AST) -> bool:
    """Whether `node` stands in a test, a benchmark, or a block or call that expects an error."""
    return bool(module.climb(module.remembered(is_trial), node, _tries))


def _tries(_: ast.AST, above: ast.AST) -> bool | None:
    if isinstance(above, (ast.With, ast.AsyncWith)):
        tries = any(_EXPECTS.search(_last(item.context_expr)) for item in above.items)
    elif isinstance(above, ast.Call):
        tries = _EXPECTS.search(_last(above)) is not None
    elif isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
        tries = _TRIES.search(above.name) is not None
    else:
        tries = isinstance(above, ast.ClassDef) and any("TestCase" in _last(base) for base in above.bases)
    return tries or None


def _last(expression: ast.expr) -> str:
    """The last part of the name of `expression`, or of what it calls."""
    if isinstance(expression, ast.Call):
        expression = expression.func
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""
