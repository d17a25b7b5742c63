"""Classes of which a condition or a table chooses one: they share a signature, whether or not each needs all of it."""

from __future__ import annotations

import ast

from dropkit.lint.semantic.expressions import given, last_name
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.syntax_tree import cached_per_file

# A class as the value of a key in a table: `"wide": models.Wide,`.
_IN_TABLE = pattern(rb"""["']\s*:\s*(?:\w+\.)*([A-Z]\w*)\s*[,}\n]""")


@cached_per_file
def alternative_classes(source: SourceFile) -> frozenset[str]:
    """The names of the classes among which conditions and tables of a file choose, with the same arguments."""
    in_tables = {match[1].decode() for match in _IN_TABLE.finditer(source.text.utf8)}
    return frozenset(_in_branches(source) | (in_tables if len(in_tables) > 1 else set()))


def _in_branches(source: SourceFile) -> set[str]:
    """The classes that different arms of one condition call with the same arguments, at least one of them."""
    arms: dict[tuple[int, str], dict[str, int]] = {}
    for name, calls in source.calls.items():
        for call in calls if name[:1].isupper() else ():
            place = _arm(source, call) if call.args or call.keywords else None
            if place is not None:
                condition, arm = place
                arguments = ast.dump(ast.Tuple(elts=given(call)))
                arms.setdefault((condition, arguments), {}).setdefault(last_name(call), arm)
    return {name for group in arms.values() if len(set(group.values())) > 1 for name in group}


def _arm(source: SourceFile, call: ast.Call) -> tuple[int, int] | None:
    """The condition that decides whether a call is returned or assigned, and its arm, by identity."""
    node: ast.AST = call
    parent = source.parent(node)
    if isinstance(parent, (ast.Return, ast.Assign)):
        node, parent = parent, source.parent(parent)
    if isinstance(parent, ast.match_case):
        return id(source.parent(parent)), id(parent)
    if not isinstance(parent, (ast.If, ast.IfExp)) or node is parent.test:
        return None
    arm = id(parent) if node is parent.body or (isinstance(parent, ast.If) and node in parent.body) else 0
    return id(source.search_ancestors(parent, _first_arm) or parent), arm


def _first_arm(node: ast.AST, parent: ast.AST) -> ast.AST | None:
    """The first `if` or conditional expression of the chain that one belongs to."""
    is_later = parent.orelse in ([node], node) if isinstance(parent, (ast.If, ast.IfExp)) else False
    return None if is_later else node
