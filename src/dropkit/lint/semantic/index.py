"""Index the syntax tree of a file in one walk: parents, definitions, calls, and reads and writes of attributes."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from dropkit.lint.semantic.definitions import (
    FUNCTIONS,
    Binding,
    ClassDefinition,
    FunctionDefinition,
    FunctionNode,
    Write,
)
from dropkit.lint.semantic.expressions import argument, self_attribute


@dataclass(slots=True)
class Index:
    """What a file defines and calls, in the order of the text."""

    # The dotted name that an expression of the file stands for.
    resolve: Callable[[ast.AST], str | None]
    classes: list[ClassDefinition] = field(default_factory=list["ClassDefinition"])
    functions: list[FunctionDefinition] = field(default_factory=list["FunctionDefinition"])
    calls: list[ast.Call] = field(default_factory=list["ast.Call"])
    attributes: dict[str, list[ast.Attribute]] = field(default_factory=dict["str", "list[ast.Attribute]"])
    # Packages of `from package import *`.
    stars: list[str] = field(default_factory=list[str])
    # Names of the module level.
    names: dict[str, list[Binding]] = field(default_factory=dict["str", "list[Binding]"])
    # The parent of each node.
    parents: dict[ast.AST | None, ast.AST] = field(default_factory=dict["ast.AST | None", "ast.AST"])
    by_node: dict[ast.AST | None, FunctionDefinition | ClassDefinition] = field(
        default_factory=dict["ast.AST | None", "FunctionDefinition | ClassDefinition"]
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Scope:
    """What is around a node: the function, the class whose body it is directly in, and the class of the method."""

    function: FunctionDefinition | None = None
    class_body: ClassDefinition | None = None
    owner: ClassDefinition | None = None


def index_tree(tree: ast.Module, resolve: Callable[[ast.AST], str | None]) -> Index:
    """Index a file in one pass, with a stack, so that no depth of nesting is too deep."""
    index = Index(resolve)
    parents = index.parents
    stack: list[tuple[ast.AST, _Scope]] = [(tree, _Scope())]
    push, pop = stack.append, stack.pop
    while stack:
        node, scope = pop()
        note, fields = _plan(node.__class__)
        inner = note(index, node, scope) if note is not None else None
        for name in fields:
            value: Any = getattr(node, name, None)
            if value is None:
                continue
            # Decorators, defaults, annotations and bases are evaluated where the definition stands.
            here = inner if inner is not None and name == "body" else scope
            if value.__class__ is not list:
                parents[value] = node
                if value.__class__ not in _LEAVES:
                    push((value, here))
                continue
            for child in reversed(value):
                if child is not None:
                    parents[child] = node
                    if child.__class__ not in _LEAVES:
                        push((child, here))
    for function in index.functions:
        for parameter in function.parameters:
            function.names.setdefault(parameter.arg, []).insert(0, Binding(parameter, derived=True))
    return index


# Fields without nodes, with nodes that the whole tree shares, or with annotations: no rule reads those, and they are a
# tenth of all nodes.
_SCALARS = frozenset({
    "annotation", "arg", "asname", "attr", "conversion", "ctx", "id", "is_async", "kind", "kwd_attrs", "level",
    "module", "name", "names", "op", "ops", "rest", "returns", "simple", "str", "tag", "type_comment",
})  # fmt: skip
# Methods of a Module that set an attribute by its name.
_ADDS = frozenset({"add_module", "register_module"})
_LEAVES = frozenset({ast.Constant, ast.MatchSingleton, ast.Name, ast.Pass, ast.Break, ast.Continue})


@cache
def _plan(kind: type[ast.AST]) -> tuple[Callable[[Index, Any, _Scope], _Scope | None] | None, tuple[str, ...]]:
    """How to note a kind of node, and the fields that hold its children, last first."""
    return _NOTES.get(kind), tuple(name for name in reversed(kind._fields) if name not in _SCALARS)


def _bind(index: Index, function: FunctionDefinition | None, name: str, binding: Binding) -> None:
    names = index.names if function is None else function.names
    names.setdefault(name, []).append(binding)


def _note_call(index: Index, call: ast.Call, scope: _Scope) -> None:
    index.calls.append(call)
    attribute = self_attribute(call.func)
    if attribute is not None and scope.owner is not None:
        scope.owner.own_calls.setdefault(attribute, []).append(call)
    if scope.owner is not None and (attribute in _ADDS or isinstance(call.func, ast.Name)):
        name, value = _added(call, attribute)
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            write = Write(name.value, value, index.parents.get(call, call), scope.function)
            scope.owner.writes.setdefault(name.value, []).append(write)


def _added(call: ast.Call, method: str | None) -> tuple[ast.expr | None, ast.expr | None]:
    """The name and value of `self.add_module(name, value)` or `setattr(self, name, value)`."""
    match call.func, call.args:
        case ast.Name(id="setattr"), [ast.Name(id="self"), name, value]:
            return name, value
        case ast.Attribute(), [name, value] if method is not None:
            return name, value
        case ast.Attribute(), _ if method is not None:
            return argument(call, 0, "name"), argument(call, 1, "module")
        case _:
            return None, None


def _note_attribute(index: Index, node: ast.Attribute, scope: _Scope) -> None:
    index.attributes.setdefault(node.attr, []).append(node)
    if scope.owner is not None and self_attribute(node) is not None and isinstance(node.ctx, ast.Load):
        scope.owner.reads.setdefault(node.attr, []).append(node)


def _note_function(index: Index, node: FunctionNode, scope: _Scope) -> _Scope:
    owner = None if isinstance(node, ast.Lambda) else scope.class_body
    function = FunctionDefinition(
        node, "<lambda>" if isinstance(node, ast.Lambda) else node.name, owner, scope.function
    )
    index.functions.append(function)
    index.by_node[node] = function
    if owner is not None:
        owner.methods[function.name] = function
    elif not isinstance(node, ast.Lambda):
        _bind(index, scope.function, function.name, Binding(node, derived=True))
    return _Scope(function, None, function.method.owner)


def _note_class(index: Index, node: ast.ClassDef, scope: _Scope) -> _Scope:
    cls = ClassDefinition(node, scope.function, index.resolve)
    index.classes.append(cls)
    index.by_node[node] = cls
    _bind(index, scope.function, node.name, Binding(node))
    return _Scope(scope.function, cls, scope.owner)


def _note_statement(index: Index, node: ast.AST, scope: _Scope) -> None:
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                _note_target(index, target, value, node, scope)
        case ast.AnnAssign(target=target, value=value):
            _note_target(index, target, value, node, scope, derived=value is None)
        case ast.NamedExpr(target=target, value=value):
            _note_target(index, target, value, node, scope)
        case ast.AugAssign(target=target, value=value):
            _note_target(index, target, value, node, scope, derived=True)
        case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
            _note_target(index, target, value, node, scope, derived=True)
        case ast.comprehension(target=target, iter=value):
            _note_target(index, target, value, target, scope, derived=True)
        case ast.With(items=items) | ast.AsyncWith(items=items):
            for item in items:
                if item.optional_vars is not None:
                    _note_target(index, item.optional_vars, item.context_expr, node, scope, derived=True)
        case _:
            pass


def _note_return(_: Index, node: ast.Return, scope: _Scope) -> None:
    if scope.function is not None and node.value is not None:
        scope.function.returns.append(node.value)


def _note_import(index: Index, node: ast.Import | ast.ImportFrom, scope: _Scope) -> None:
    prefix = "." * node.level + (node.module or "") if isinstance(node, ast.ImportFrom) else None
    for alias in node.names:
        if prefix is None:
            name = alias.asname or alias.name.split(".")[0]
            _bind(index, scope.function, name, Binding(node, imported=alias.name if alias.asname else name))
        elif alias.name == "*":
            index.stars.append(prefix)
        else:
            dotted = f"{prefix}{'' if prefix.endswith('.') else '.'}{alias.name}"
            _bind(index, scope.function, alias.asname or alias.name, Binding(node, imported=dotted))


def _note_target(
    index: Index,
    target: ast.expr,
    value: ast.expr | None,
    statement: ast.AST,
    scope: _Scope,
    derived: bool = False,
) -> None:
    """Bind the targets of an assignment, unpacking tuples."""
    if isinstance(target, ast.Name):
        if scope.class_body is not None:
            write = Write(target.id, value, statement, None, derived)
            scope.class_body.writes.setdefault(target.id, []).append(write)
        else:
            _bind(index, scope.function, target.id, Binding(statement, value, derived=derived))
    elif isinstance(target, ast.Starred):
        _note_target(index, target.value, value, statement, scope, derived=True)
    elif isinstance(target, (ast.Tuple, ast.List)):
        parts = value.elts if isinstance(value, (ast.Tuple, ast.List)) and not derived else []
        pairwise = len(parts) == len(target.elts) and not any(isinstance(part, ast.Starred) for part in parts)
        for place, element in enumerate(target.elts):
            part = parts[place] if pairwise else value
            _note_target(index, element, part, statement, scope, derived or not pairwise)
    else:
        attribute = self_attribute(target)
        if attribute is not None and scope.owner is not None:
            write = Write(attribute, value, statement, scope.function, derived)
            scope.owner.writes.setdefault(attribute, []).append(write)


_NOTES: dict[type[ast.AST], Callable[[Index, Any, _Scope], _Scope | None]] = {
    ast.Call: _note_call,
    ast.Attribute: _note_attribute,
    ast.ClassDef: _note_class,
    ast.Import: _note_import,
    ast.ImportFrom: _note_import,
    ast.Return: _note_return,
    **dict.fromkeys(FUNCTIONS, _note_function),
    **dict.fromkeys((ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.AugAssign, ast.comprehension), _note_statement),
    **dict.fromkeys((ast.For, ast.AsyncFor, ast.With, ast.AsyncWith), _note_statement),
}
