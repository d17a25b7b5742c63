"""Code that tries something out, where a misuse is there to be seen: tests, and blocks that expect an error."""

from __future__ import annotations

import ast

from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile

_EXPECTS = Vocabulary(r"raises|warns|expect\w*|suppress\w*")
_TRIES = Vocabulary(r"tests?|testing|bench\w*|profil\w*|warm ?up")


def is_trial(source: SourceFile, node: ast.AST) -> bool:
    """Whether `node` stands in a test, a benchmark, or a block or call that expects an error."""
    return bool(source.search_ancestors(node, _tries))


def _tries(_: ast.AST, above: ast.AST) -> bool | None:
    if isinstance(above, (ast.With, ast.AsyncWith)):
        tries = any(_EXPECTS.has(_last(item.context_expr)) for item in above.items)
    elif isinstance(above, ast.Call):
        tries = _EXPECTS.has(_last(above))
    elif isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef)):
        tries = _TRIES.has(above.name)
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
