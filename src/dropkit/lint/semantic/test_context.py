"""Code in tests and benchmarks, or that expects an error, where a misuse is intended."""

from __future__ import annotations

import ast

from dropkit.lint.semantic.expressions import last_name
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile

_EXPECTS = Vocabulary(r"raises|warns|expect\w*|suppress\w*")
_TRIES = Vocabulary(r"tests?|testing|bench\w*|profil\w*|warm ?up")


def is_trial(source: SourceFile, node: ast.AST) -> bool:
    """Whether `node` is in a test, a benchmark, or a block or call that expects an error."""
    return bool(source.search_ancestors(node, _tries))


def _tries(_: ast.AST, parent: ast.AST) -> bool | None:
    if isinstance(parent, (ast.With, ast.AsyncWith)):
        tries = any(_EXPECTS.has(last_name(item.context_expr)) for item in parent.items)
    elif isinstance(parent, ast.Call):
        tries = _EXPECTS.has(last_name(parent))
    elif isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
        tries = _TRIES.has(parent.name)
    else:
        tries = isinstance(parent, ast.ClassDef) and any("TestCase" in last_name(base) for base in parent.bases)
    return tries or None
