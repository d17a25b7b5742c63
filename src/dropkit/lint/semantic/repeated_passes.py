"""Recognise code that runs a model several times on one input and averages, which needs layers that are random."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from dropkit.lint.semantic.expressions import last_name, names_bound, names_in
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file

_AVERAGES = frozenset(
    {"mean", "nanmean", "median", "average", "var", "std", "var_mean", "std_mean", "entropy", "quantile"}
)
_TRAINS = frozenset({"backward", "zero_grad", "step", "manual_backward"})
# Names of calls that run no model.
_NO_MODELS = frozenset(
    {"append", "extend", "add", "update", "range", "print", "len", "int", "float", "isinstance", "super", "getattr"}
)


@cached_per_file
def averages_passes(source: SourceFile) -> bool:
    """Whether a function of this file repeats a call on the same input, and averages what it returns."""
    return any(
        _TRAINS.isdisjoint(called)
        and not _AVERAGES.isdisjoint(called)
        and any(_repeats(source, loop) for loop in loops)
        for loops, called in _functions(source)
    )


def _functions(source: SourceFile) -> Iterator[tuple[list[ast.AST], set[str]]]:
    """The loops over `range` of each function that has any, and the last names of all that it calls."""
    for function in dict.fromkeys(source.function(call) for call in source.calls.get("range", [])):
        if function is not None:
            nodes = list(ast.walk(function.node))
            called = {last_name(node) for node in nodes if isinstance(node, ast.Call)}
            yield [node for node in nodes if isinstance(node, (ast.For, ast.ListComp, ast.GeneratorExp))], called


def _repeats(source: SourceFile, loop: ast.AST) -> bool:
    """Whether a loop over `range` makes the same call in each round, of something that this file does not name."""
    match loop:
        case ast.For(target=ast.Name(id=index), iter=ast.Call() as rounds, body=body):
            parts: Sequence[ast.AST] = body
        case ast.ListComp(elt=part, generators=[each]) | ast.GeneratorExp(elt=part, generators=[each]):
            if not isinstance(each.target, ast.Name) or not isinstance(each.iter, ast.Call):
                return False
            index, rounds, parts = each.target.id, each.iter, [part]
        case _:
            return False
    nodes = [node for part in parts for node in ast.walk(part)]
    bound = {index}.union(*map(names_bound, parts))
    return last_name(rounds) == "range" and any(
        isinstance(node, ast.Call) and _runs_a_model(source, node) and bound.isdisjoint(names_in(node))
        for node in nodes
    )


def _runs_a_model(source: SourceFile, call: ast.Call) -> bool:
    """Whether a call may be one of a model: of an unknown name, or of an attribute or method of an object."""
    return bool(call.args) and source.called(call) is None and last_name(call) not in _NO_MODELS
