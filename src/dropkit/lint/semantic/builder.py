"""One walk over the tree of a file that fills its index: who stands where, what is called, read and set."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from dropkit.lint.semantic.definitions import (
    FUNCTIONS,
    Binding,
    ClassDefinition,
    FunctionDefinition,
    FunctionNode,
    Write,
)
from dropkit.lint.semantic.expressions import self_attribute

if TYPE_CHECKING:
    from dropkit.lint.semantic.model import SourceFile


@dataclass(frozen=True, slots=True, eq=False)
class _Scope:
    """Where the walk is: in which function, directly in which class, and in a method (or closure in one) of which."""

    function: FunctionDefinition | None = None
    owner: ClassDefinition | None = None
    holder: ClassDefinition | None = None


def walk(source: SourceFile) -> None:
    """Fill the index: one pass, with a stack, so that no depth of nesting is too deep."""
    above = source.above
    stack: list[tuple[ast.AST, _Scope]] = [(source.tree, _Scope())]
    push, pop = stack.append, stack.pop
    while stack:
        node, scope = pop()
        note, fields = _plan(node.__class__)
        inner = note(source, node, scope) if note is not None else None
        for name in fields:
            value: Any = getattr(node, name, None)
            if value is None:
                continue
            # Decorators, defaults, annotations and bases are evaluated where the definition stands.
            here = inner if inner is not None and name == "body" else scope
            if value.__class__ is not list:
                above[value] = node
                if value.__class__ not in _LEAVES:
                    push((value, here))
                continue
            for child in reversed(value):
                if child is not None:
                    above[child] = node
                    if child.__class__ not in _LEAVES:
                        push((child, here))
    for function in source.functions:
        for parameter in function.parameters:
            function.names.setdefault(parameter.arg, []).insert(0, Binding(parameter, derived=True))


# Fields that hold no node, one that serves the whole tree and has no place of its own, or an annotation, which no rule
# walks and which is a tenth of all nodes.
_SCALARS = frozenset({
    "annotation", "arg", "asname", "attr", "conversion", "ctx", "id", "is_async", "kind", "kwd_attrs", "level",
    "module", "name", "names", "op", "ops", "rest", "returns", "simple", "str", "tag", "type_comment",
})  # fmt: skip
_LEAVES = frozenset({ast.Constant, ast.MatchSingleton, ast.Name, ast.Pass, ast.Break, ast.Continue})


@cache
def _plan(kind: type[ast.AST]) -> tuple[Callable[[SourceFile, Any, _Scope], _Scope | None] | None, tuple[str, ...]]:
    """What is noted of a kind of node, and the fields that hold its children, last first."""
    return _NOTES.get(kind), tuple(name for name in reversed(kind._fields) if name not in _SCALARS)


def _bind(source: SourceFile, function: FunctionDefinition | None, name: str, binding: Binding) -> None:
    names = source.names if function is None else function.names
    names.setdefault(name, []).append(binding)


def _note_call(source: SourceFile, call: ast.Call, scope: _Scope) -> None:
    source.all_calls.append(call)
    attribute = self_attribute(call.func)
    if attribute is not None and scope.holder is not None:
        scope.holder.own_calls.setdefault(attribute, []).append(call)


def _note_attribute(source: SourceFile, node: ast.Attribute, scope: _Scope) -> None:
    source.attributes.setdefault(node.attr, []).append(node)
    if scope.holder is not None and self_attribute(node) is not None and isinstance(node.ctx, ast.Load):
        scope.holder.reads.setdefault(node.attr, []).append(node)


def _note_function(source: SourceFile, node: FunctionNode, scope: _Scope) -> _Scope:
    owner = None if isinstance(node, ast.Lambda) else scope.owner
    found = FunctionDefinition(node, "<lambda>" if isinstance(node, ast.Lambda) else node.name, owner, scope.function)
    source.functions.append(found)
    source.by_node[node] = found
    if owner is not None:
        owner.methods[found.name] = found
    elif not isinstance(node, ast.Lambda):
        _bind(source, scope.function, found.name, Binding(node, derived=True))
    return _Scope(found, None, found.method.owner)


def _note_class(source: SourceFile, node: ast.ClassDef, scope: _Scope) -> _Scope:
    found = ClassDefinition(node, source, scope.function)
    source.classes.append(found)
    source.by_node[node] = found
    _bind(source, scope.function, node.name, Binding(node))
    return _Scope(scope.function, found, scope.holder)


def _note_statement(source: SourceFile, node: ast.AST, scope: _Scope) -> None:
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                _note_target(source, target, value, node, scope)
        case ast.AnnAssign(target=target, value=value):
            _note_target(source, target, value, node, scope, derived=value is None)
        case ast.NamedExpr(target=target, value=value):
            _note_target(source, target, value, node, scope)
        case ast.AugAssign(target=target, value=value):
            _note_target(source, target, value, node, scope, derived=True)
        case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
            _note_target(source, target, value, node, scope, derived=True)
        case ast.comprehension(target=target, iter=value):
            _note_target(source, target, value, target, scope, derived=True)
        case ast.With(items=items) | ast.AsyncWith(items=items):
            for item in items:
                if item.optional_vars is not None:
                    _note_target(source, item.optional_vars, item.context_expr, node, scope, derived=True)
        case _:
            pass


def _note_import(source: SourceFile, node: ast.Import | ast.ImportFrom, scope: _Scope) -> None:
    prefix = "." * node.level + (node.module or "") if isinstance(node, ast.ImportFrom) else None
    for alias in node.names:
        if prefix is None:
            name = alias.asname or alias.name.split(".")[0]
            _bind(source, scope.function, name, Binding(node, imported=alias.name if alias.asname else name))
        elif alias.name == "*":
            source.stars.append(prefix)
        else:
            dotted = f"{prefix}{'' if prefix.endswith('.') else '.'}{alias.name}"
            _bind(source, scope.function, alias.asname or alias.name, Binding(node, imported=dotted))


def _note_target(
    source: SourceFile,
    target: ast.expr,
    value: ast.expr | None,
    statement: ast.AST,
    scope: _Scope,
    derived: bool = False,
) -> None:
    """Bind what stands on the left, taking tuples apart."""
    if isinstance(target, ast.Name):
        if scope.owner is not None:
            write = Write(target.id, value, statement, None, derived)
            scope.owner.writes.setdefault(target.id, []).append(write)
        else:
            _bind(source, scope.function, target.id, Binding(statement, value, derived=derived))
    elif isinstance(target, ast.Starred):
        _note_target(source, target.value, value, statement, scope, derived=True)
    elif isinstance(target, (ast.Tuple, ast.List)):
        parts = value.elts if isinstance(value, (ast.Tuple, ast.List)) and not derived else []
        pairwise = len(parts) == len(target.elts) and not any(isinstance(one, ast.Starred) for one in parts)
        for index, one in enumerate(target.elts):
            part = parts[index] if pairwise else value
            _note_target(source, one, part, statement, scope, derived or not pairwise)
    else:
        attribute = self_attribute(target)
        if attribute is not None and scope.holder is not None:
            write = Write(attribute, value, statement, scope.function, derived)
            scope.holder.writes.setdefault(attribute, []).append(write)


_NOTES: dict[type[ast.AST], Callable[[SourceFile, Any, _Scope], _Scope | None]] = {
    ast.Call: _note_call,
    ast.Attribute: _note_attribute,
    ast.ClassDef: _note_class,
    ast.Import: _note_import,
    ast.ImportFrom: _note_import,
    **dict.fromkeys(FUNCTIONS, _note_function),
    **dict.fromkeys((ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.AugAssign, ast.comprehension), _note_statement),
    **dict.fromkeys((ast.For, ast.AsyncFor, ast.With, ast.AsyncWith), _note_statement),
}
