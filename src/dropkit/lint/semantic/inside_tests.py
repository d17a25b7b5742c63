"""Recognise code in tests and benchmarks, and code that expects an error: a misuse there is intended."""

from __future__ import annotations

import ast

from dropkit.lint.semantic.expressions import last_name
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile

_EXPECTS_ERROR = Vocabulary(r"raises|warns|expect\w*|suppress\w*")
_TEST_NAME = Vocabulary(r"tests?|testing|bench\w*|profil\w*|warm ?up")


def is_in_test(source: SourceFile, node: ast.AST) -> bool:
    """Whether `node` is in a test, a benchmark, or a block or call that expects an error."""
    return bool(source.search_ancestors(node, _is_test))


def _is_test(_: ast.AST, parent: ast.AST) -> bool | None:
    if isinstance(parent, (ast.With, ast.AsyncWith)):
        is_test = any(_EXPECTS_ERROR.has(last_name(item.context_expr)) for item in parent.items)
    elif isinstance(parent, ast.Call):
        is_test = _EXPECTS_ERROR.has(last_name(parent))
    elif isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
        is_test = _TEST_NAME.has(parent.name)
    else:
        is_test = isinstance(parent, ast.ClassDef) and any("TestCase" in last_name(base) for base in parent.bases)
    return is_test or None
