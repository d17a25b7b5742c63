"""Classes of which a condition or a table chooses one: they share a signature, whether or not each needs all of it."""

from __future__ import annotations

import ast
from collections import Counter

from dropkit.lint.semantic.expressions import last_name
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file


def is_alternative(source: SourceFile, name: str) -> bool:
    """Whether this file chooses between a class of this name and others that it gives the same arguments."""
    return name in alternative_classes(source)


@cached_per_file
def alternative_classes(source: SourceFile) -> frozenset[str]:
    """The names of the classes among which conditions and tables of a file choose."""
    names: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.If, ast.IfExp, ast.Match)) and not _is_later_arm(source, node):
            names |= _with_equal_arguments(source, _arms(node))
        elif isinstance(node, (ast.Dict, ast.List, ast.Tuple, ast.IfExp)):
            names |= _in_table(node)
    return frozenset(names)


def _is_later_arm(source: SourceFile, node: ast.AST) -> bool:
    """Whether an `if` or conditional expression is the `elif` of another."""
    parent = source.parent(node)
    if isinstance(node, ast.If):
        return isinstance(parent, ast.If) and parent.orelse == [node]
    return isinstance(node, ast.IfExp) and isinstance(parent, ast.IfExp) and node is parent.orelse


def _arms(node: ast.If | ast.IfExp | ast.Match) -> list[list[ast.expr]]:
    """What each arm assigns, returns or is."""
    if isinstance(node, ast.Match):
        return [_results(case.body) for case in node.cases]
    arms: list[list[ast.expr]] = []
    rest: ast.AST | None = node
    while rest is not None:
        if isinstance(rest, ast.If):
            arms.append(_results(rest.body))
            following = rest.orelse
            rest = following[0] if len(following) == 1 and isinstance(following[0], ast.If) else None
            if rest is None:
                arms.append(_results(following))
        elif isinstance(rest, ast.IfExp):
            arms.append([rest.body])
            rest = rest.orelse
        else:
            arms.append([rest] if isinstance(rest, ast.expr) else [])
            rest = None
    return arms


def _results(body: list[ast.stmt]) -> list[ast.expr]:
    values = [getattr(statement, "value", None) for statement in body if not isinstance(statement, ast.AugAssign)]
    return [value for value in values if isinstance(value, ast.expr)]


def _with_equal_arguments(source: SourceFile, arms: list[list[ast.expr]]) -> set[str]:
    """The classes that different arms call with the same arguments, at least one of them."""
    by_arguments: dict[str, dict[str, int]] = {}
    for number, arm in enumerate(arms):
        for call in arm:
            name = last_name(call) if isinstance(call, ast.Call) else ""
            if isinstance(call, ast.Call) and name[:1].isupper() and (call.args or call.keywords):
                arguments = ast.dump(ast.Tuple(elts=[*call.args, *(each.value for each in call.keywords)]))
                by_arguments.setdefault(arguments, {}).setdefault(name, number)
    return {name for group in by_arguments.values() if len(set(group.values())) > 1 for name in group}


def _in_table(node: ast.Dict | ast.List | ast.Tuple | ast.IfExp) -> set[str]:
    """The classes, not called, among the values of a table."""
    values = (
        node.values if isinstance(node, ast.Dict) else [node.body, node.orelse] if isinstance(node, ast.IfExp) else node.elts
    )
    names = [last_name(value) for value in values if isinstance(value, (ast.Name, ast.Attribute))]
    classes = Counter(name for name in names if name[:1].isupper() and not name.isupper())
    return set(classes) if len(classes) > 1 else set()
