"""Which statements of a `for` loop run in its last round: `if i < len(layers) - 1` is false there."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator

from dropkit.lint.semantic.definitions import FUNCTIONS
from dropkit.lint.semantic.expressions import literal, names_in
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import exits

_LAST = Vocabulary(r"last|final")
# What a comparison says with its sides exchanged.
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
_BELOW, _AT = (ast.Lt, ast.NotEq, ast.IsNot), (ast.Eq, ast.Is, ast.GtE)


def skips_last_round(source: SourceFile, statement: ast.AST, inside: Container[ast.AST]) -> bool:
    """Whether `statement` surely does not run in the last round of a loop around it that is not among `inside`."""
    conditions: list[tuple[ast.expr, bool]] = []
    node = statement
    for parent in source.parents(statement):
        if isinstance(parent, FUNCTIONS):
            break
        conditions += _conditions(source, node, parent)
        if isinstance(parent, (ast.For, ast.AsyncFor)) and parent not in inside:
            index = frozenset(names_in(parent.target))
            if any(_is(source, test, not wanted, index) for test, wanted in conditions):
                return True
        node = parent
    return False


def _conditions(source: SourceFile, node: ast.AST, parent: ast.AST) -> Iterator[tuple[ast.expr, bool]]:
    """The tests that must be true, or false, for `node` to run: of `parent`, and of what leaves its block before."""
    block, place = source.position(node)
    if isinstance(parent, ast.If) and block:
        yield parent.test, block is parent.body
    for before in block[:place]:
        if isinstance(before, ast.If) and exits(before.body):
            yield before.test, False


def _is(source: SourceFile, test: ast.expr, wanted: bool, index: frozenset[str]) -> bool:
    """Whether a test is surely `wanted` in the last round of a loop with these names of its target."""
    match test:
        case ast.BoolOp(op=operator, values=parts):
            decides = any if isinstance(operator, ast.Or) is wanted else all
            return decides(_is(source, part, wanted, index) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _is(source, operand, not wanted, index)
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            kind = type(operator)
            if index.isdisjoint(names_in(left)):
                left, right, kind = right, left, _MIRRORED.get(kind, kind)
            if index.isdisjoint(names_in(left)) or not index.isdisjoint(names_in(right)):
                return False
            return issubclass(kind, _AT if wanted else _BELOW) and _is_last(source, left, right)
        case _:
            return False


def _is_last(source: SourceFile, counter: ast.expr, bound: ast.expr) -> bool:
    """Whether a comparison of these two is with the last round: `i` and `n - 1`, `i + 1` and `n`, `i` and `last`."""
    match counter, source.substitute(bound):
        case _, ast.BinOp(op=ast.Sub(), right=ast.Constant(value=1)):
            return True
        case ast.BinOp(op=ast.Add(), right=ast.Constant(value=1)), value:
            return not isinstance(value, ast.Constant)
        case _, ast.Subscript(slice=ast.UnaryOp(op=ast.USub(), operand=first)):
            return literal(first) == 1
        case _, _:
            return any(map(_LAST.has, names_in(bound)))
