"""The index of one file: one iterative walk over its tree, and what rules ask of it.

A rule asks for calls by the last part of their name, for classes and functions; from a node it goes up by `parent`,
and from an expression to the one dotted name it stands for by `dotted`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, TypeAlias, cast

from dropkit import catalog
from dropkit.facts.text import Text

FunctionNode: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda"

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(slots=True, eq=False)
class Function:
    """A function, method or lambda; `within` is the function around it, `owner` the class whose method it is."""

    node: FunctionNode
    name: str
    owner: Class | None
    within: Function | None
    # Everything bound in it: arguments (None for the value), assignments, imports (a dotted name).
    names: dict[str, list[Binding]] = field(default_factory=dict["str", "list[Binding]"])

    @property
    def parameters(self) -> list[ast.arg]:
        """All of them, in order, without *args and **kwargs."""
        arguments = self.node.args
        return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]

    @property
    def self_name(self) -> str | None:
        """What a method calls its object; None for functions, static and class methods."""
        if self.owner is None or isinstance(self.node, ast.Lambda):
            return None
        for decorator in self.node.decorator_list:
            if isinstance(decorator, ast.Name) and decorator.id in ("staticmethod", "classmethod"):
                return None
        first = [*self.node.args.posonlyargs, *self.node.args.args][:1]
        return first[0].arg if first else None

    @property
    def method(self) -> Function:
        """The outermost function around it that is still in the same class: a closure's method, or itself."""
        function = self
        while function.owner is None and function.within is not None:
            function = function.within
        return function


@dataclass(slots=True, eq=False)
class Binding:
    """One place where a name gets a value: an expression, an import's dotted name, or something not followed."""

    statement: ast.AST
    value: ast.expr | None = None
    imported: str | None = None
    # What is bound is part of the value, or made from it: unpacking, for, with, augmented assignment.
    derived: bool = False


@dataclass(slots=True, eq=False)
class Write:
    """`self.attribute = value` in a method (or at class level, where `function` is None)."""

    attribute: str
    value: ast.expr | None
    statement: ast.AST
    function: Function | None
    derived: bool = False


@dataclass(slots=True, eq=False)
class Class:
    """A class: its bases by dotted name (None where not known), methods, and what is done to `self`."""

    node: ast.ClassDef
    module: Module
    within: Function | None
    methods: dict[str, Function] = field(default_factory=dict["str", "Function"])
    writes: dict[str, list[Write]] = field(default_factory=dict["str", "list[Write]"])
    reads: dict[str, list[ast.Attribute]] = field(default_factory=dict["str", "list[ast.Attribute]"])
    # Calls self.method(...) of its own, by name.
    own_calls: dict[str, list[ast.Call]] = field(default_factory=dict["str", "list[ast.Call]"])

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def bases(self) -> list[str | None]:
        """Dotted names of the bases, in order."""
        return [self.module.dotted(base) for base in self.node.bases]

    @property
    def lineage(self) -> list[Class]:
        """Itself and the classes of this file that it inherits from, nearest first."""
        found: list[Class] = [self]
        for one in found:
            for base in one.node.bases:
                known = self.module.local_class(base)
                if known is not None and known not in found:
                    found.append(known)
        return found

    @property
    def heirs(self) -> list[Class]:
        """The classes of this file that inherit from it, near or far."""
        return [other for other in self.module.classes if other is not self and self in other.lineage]

    def method(self, name: str) -> Function | None:
        """The method that a call of `name` runs, as far as this file knows."""
        for one in self.lineage:
            if name in one.methods:
                return one.methods[name]
        return None

    def values(self, attribute: str) -> list[ast.expr | None]:
        """Everything that `self.attribute` is set to here or in bases of this file."""
        return [write.value for one in self.lineage for write in one.writes.get(attribute, [])]

    @property
    def roots(self) -> list[str]:
        """The dotted names that its lineage ends in: bases from other files or libraries."""
        return [
            root
            for one in self.lineage
            for base, name in zip(one.node.bases, one.bases, strict=True)
            if (root := name or self._unbound(base)) is not None and self.module.local_class(base) is None
        ]

    def _unbound(self, base: ast.expr) -> str | None:
        """The name of a base that this file does not bind: from a star import, or the file is a piece of another."""
        return base.id if isinstance(base, ast.Name) and not self.module.bindings(base) else None

    @property
    def is_module(self) -> bool:
        """Whether its objects are torch Modules, by their bases or, where those are unknown, by what they do."""
        known = self.module._is_module.get(self.node)
        if known is None:
            known = self.module._is_module[self.node] = self._looks_like_a_module()
        return known

    def _looks_like_a_module(self) -> bool:
        for root in self.roots:
            last = root.rsplit(".", 1)[-1]
            if root.startswith("torch.nn.") and last.lstrip("_")[:1].isupper():
                return True
            if last in catalog.MODULE_BASES and not root.startswith(catalog.NO_MODULES):
                return True
        if not any(one.node.bases for one in self.lineage) or any(
            root.startswith(("torch.autograd.", "torch.utils.data.")) for root in self.roots
        ):
            return False
        # A base that is not known, a forward, and layers kept in self.
        return self.method("forward") is not None and any(
            isinstance(write.value, ast.Call)
            and (self.module.dotted(write.value.func) or "").startswith(("torch.nn.", "torch_geometric.nn."))
            for one in self.lineage
            for writes in one.writes.values()
            for write in writes
        )


class Module:
    """One parsed file. Reading it is one walk; nothing in it is imported or run."""

    def __init__(self, path: str, text: Text, tree: ast.Module, always_on: tuple[str, ...] = ()) -> None:
        self.path = path
        self.text = text
        self.tree = tree
        # Names, as patterns, of classes and functions whose dropout stays on because the user says so.
        self.always_on = always_on
        self.classes: list[Class] = []
        self.functions: list[Function] = []
        self.calls: dict[str, list[ast.Call]] = {}
        self.attributes: dict[str, list[ast.Attribute]] = {}
        self.stars: list[str] = []
        self.names: dict[str, list[Binding]] = {}
        self._above: dict[ast.AST, ast.AST] = {}
        self._is_module: dict[ast.ClassDef, bool] = {}
        self._by_node: dict[ast.AST, Function | Class] = {}
        self._dotted: dict[ast.AST, str | None] = {}
        _walk(self)

    def forget(self) -> None:
        """Let go of the tree: what is left is no circle, and its memory is free at once."""
        for one in self.classes:
            for table in (one.methods, one.writes, one.reads, one.own_calls):
                table.clear()
        for function in self.functions:
            function.names.clear()
        for table in (
            self.calls,
            self.attributes,
            self.names,
            self._is_module,
            self._by_node,
            self._dotted,
            self._above,
        ):
            table.clear()
        self.classes.clear()
        self.functions.clear()

    @cached_property
    def package(self) -> str:
        """Dotted name of the folder that relative imports begin at, from the path."""
        return ".".join(self.path.replace("\\", "/").split("/")[:-1]).strip(".")

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node that `node` stands in."""
        return self._above.get(node)

    def parents(self, node: ast.AST) -> Iterator[ast.AST]:
        """From the nearest out to the file."""
        above = self.parent(node)
        while above is not None:
            yield above
            above = self.parent(above)

    def statement(self, node: ast.AST) -> ast.stmt:
        """The statement that `node` is part of, or is."""
        while not isinstance(node, ast.stmt):
            above = self.parent(node)
            assert above is not None, "every expression stands in a statement"
            node = above
        return node

    def block(self, statement: ast.AST) -> list[ast.stmt]:
        """The list of statements that `statement` stands in."""
        above = self.parent(statement)
        for name in ("body", "orelse", "finalbody", "handlers"):
            block = getattr(above, name, None)
            if isinstance(block, list) and statement in block:
                return cast("list[ast.stmt]", block)
        return []

    def function(self, node: ast.AST) -> Function | None:
        """The function whose body `node` stands in; decorators, defaults and annotations stand outside of theirs."""
        below = node
        for above in self.parents(node):
            if isinstance(above, _FUNCTIONS) and (
                below is above.body if isinstance(above, ast.Lambda) else isinstance(below, ast.stmt)
            ):
                found = self._by_node[above]
                return found if isinstance(found, Function) else None
            below = above
        return None

    def owner(self, node: ast.AST) -> Class | None:
        """The class whose method (or a closure in it) `node` stands in."""
        function = self.function(node)
        return function.method.owner if function is not None else None

    def local_class(self, expression: ast.expr) -> Class | None:
        """The class of this file that a plain name stands for."""
        if isinstance(expression, ast.Name):
            statements = [binding.statement for binding in self.bindings(expression)]
            above = self.parent(expression)
            if isinstance(above, ast.ClassDef):
                # A base has its name before the class is made: `class Dropout(Dropout)` is not its own.
                earlier = [one for one in statements if _before(one, expression)]
                statements = earlier or [one for one in statements if one is not above]
            for statement in reversed(statements):
                if isinstance(statement, ast.ClassDef):
                    found = self._by_node[statement]
                    assert isinstance(found, Class)
                    return found
        return None

    def bindings(self, name: ast.Name) -> list[Binding]:
        """Every binding of `name` in the nearest scope that has one."""
        function = self.function(name)
        while function is not None:
            if name.id in function.names:
                return function.names[name.id]
            function = function.within
        return self.names.get(name.id, [])

    def value(self, name: ast.Name) -> ast.expr | None:
        """The expression last assigned to `name` before it is used, where that is one plain assignment."""
        before = [b for b in self.bindings(name) if _before(b.statement, name)]
        return before[-1].value if before and not before[-1].derived else None

    def substitute(self, expression: ast.expr) -> ast.expr:
        """`expression`, or what its name was last set to in the function."""
        if isinstance(expression, ast.Name):
            value = self.value(expression)
            if value is not None:
                return value
        return expression

    def dotted(self, expression: ast.AST) -> str | None:
        """The canonical dotted name that an expression like `F.dropout` stands for; None where it is not known.

        Names that this file binds to anything but an import are not known; a class of this file is known by its name.
        """
        if expression in self._dotted:
            return self._dotted[expression]
        parts: list[str] = []
        node = expression
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        name: str | None = None
        if isinstance(node, ast.Name):
            root = self._root(node)
            name = catalog.canonical(".".join([root, *reversed(parts)])) if root is not None else None
        self._dotted[expression] = name
        return name

    def called(self, call: ast.AST) -> str | None:
        """The dotted name of what `call` calls."""
        return self.dotted(call.func) if isinstance(call, ast.Call) else None

    def _root(self, name: ast.Name) -> str | None:
        bindings = self.bindings(name)
        imported = [binding.imported for binding in bindings if binding.imported is not None]
        if imported:
            # `try: import a as x / except ImportError: import b as x` and the like: torch's if it is among them.
            return next((one for one in imported if one.startswith("torch")), imported[-1])
        if bindings:
            value = bindings[-1].value
            if isinstance(bindings[-1].statement, ast.ClassDef):
                return name.id
            # An alias at module level: Linear = nn.Linear.
            if len(bindings) == 1 and isinstance(value, ast.Attribute) and not bindings[0].derived:
                return self.dotted(value)
            return None
        for star in self.stars:
            if star.startswith("torch"):
                return f"{star}.{name.id}"
        if self.stars:
            # What a star brings from a file not seen is by convention these.
            return {"nn": "torch.nn", "F": "torch.nn.functional", "torch": "torch"}.get(name.id)
        return None


def argument(call: ast.Call, position: int | None, name: str) -> ast.expr | None:
    """The argument of `call` by name or by position; None where absent (or hidden in * or **)."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    if position is not None and position < len(call.args):
        if any(isinstance(one, ast.Starred) for one in call.args[: position + 1]):
            return None
        return call.args[position]
    return None


def unpacks(call: ast.Call) -> bool:
    """Whether arguments come from * or **, so that an absent one may be there."""
    return any(keyword.arg is None for keyword in call.keywords) or any(
        isinstance(one, ast.Starred) for one in call.args
    )


def self_attribute(node: ast.AST | None) -> str | None:
    """`x` for the expression `self.x`."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return None


def _before(statement: ast.AST, use: ast.AST) -> bool:
    if isinstance(statement, (*_FUNCTIONS, ast.arguments, ast.arg)):
        return True
    end = (getattr(statement, "end_lineno", 0), getattr(statement, "end_col_offset", 0))
    if isinstance(statement, (ast.For, ast.AsyncFor, ast.With, ast.AsyncWith)):
        end = (statement.lineno, statement.col_offset)
    return end <= (use.lineno, use.col_offset)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, slots=True, eq=False)
class _Scope:
    """Where the walk is: in which function, directly in which class, and in a method (or closure in one) of which."""

    function: Function | None = None
    owner: Class | None = None
    holder: Class | None = None


def _walk(module: Module) -> None:
    """Fill the index: one pass, with a stack, so that no depth of nesting is too deep."""
    above = module._above
    stack: list[tuple[ast.AST, _Scope]] = [(module.tree, _Scope())]
    push, pop = stack.append, stack.pop
    while stack:
        node, scope = pop()
        note, fields = _plan(node.__class__)
        inner = note(module, node, scope) if note is not None else None
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
    for function in module.functions:
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
def _plan(kind: type[ast.AST]) -> tuple[Callable[[Module, Any, _Scope], _Scope | None] | None, tuple[str, ...]]:
    """What is noted of a kind of node, and the fields that hold its children, last first."""
    return _NOTES.get(kind), tuple(name for name in reversed(kind._fields) if name not in _SCALARS)


def _bind(module: Module, function: Function | None, name: str, binding: Binding) -> None:
    names = module.names if function is None else function.names
    names.setdefault(name, []).append(binding)


def _note_call(module: Module, call: ast.Call, scope: _Scope) -> None:
    callee = call.func
    if isinstance(callee, ast.Attribute):
        module.calls.setdefault(callee.attr, []).append(call)
        if scope.holder is not None and self_attribute(callee) is not None:
            scope.holder.own_calls.setdefault(callee.attr, []).append(call)
    elif isinstance(callee, ast.Name):
        module.calls.setdefault(callee.id, []).append(call)


def _note_attribute(module: Module, node: ast.Attribute, scope: _Scope) -> None:
    module.attributes.setdefault(node.attr, []).append(node)
    if scope.holder is not None and self_attribute(node) is not None and isinstance(node.ctx, ast.Load):
        scope.holder.reads.setdefault(node.attr, []).append(node)


def _note_function(module: Module, node: FunctionNode, scope: _Scope) -> _Scope:
    owner = None if isinstance(node, ast.Lambda) else scope.owner
    found = Function(node, "<lambda>" if isinstance(node, ast.Lambda) else node.name, owner, scope.function)
    module.functions.append(found)
    module._by_node[node] = found
    if owner is not None:
        owner.methods[found.name] = found
    elif not isinstance(node, ast.Lambda):
        _bind(module, scope.function, found.name, Binding(node, derived=True))
    return _Scope(found, None, found.method.owner)


def _note_class(module: Module, node: ast.ClassDef, scope: _Scope) -> _Scope:
    found = Class(node, module, scope.function)
    module.classes.append(found)
    module._by_node[node] = found
    _bind(module, scope.function, node.name, Binding(node))
    return _Scope(scope.function, found, scope.holder)


def _note_statement(module: Module, node: ast.AST, scope: _Scope) -> None:
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                _note_target(module, target, value, node, scope)
        case ast.AnnAssign(target=target, value=value):
            _note_target(module, target, value, node, scope, derived=value is None)
        case ast.NamedExpr(target=target, value=value):
            _note_target(module, target, value, node, scope)
        case ast.AugAssign(target=target, value=value):
            _note_target(module, target, value, node, scope, derived=True)
        case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
            _note_target(module, target, value, node, scope, derived=True)
        case ast.comprehension(target=target, iter=value):
            _note_target(module, target, value, target, scope, derived=True)
        case ast.With(items=items) | ast.AsyncWith(items=items):
            for item in items:
                if item.optional_vars is not None:
                    _note_target(module, item.optional_vars, item.context_expr, node, scope, derived=True)
        case _:
            pass


def _note_import(module: Module, node: ast.Import | ast.ImportFrom, scope: _Scope) -> None:
    prefix = "." * node.level + (node.module or "") if isinstance(node, ast.ImportFrom) else None
    for alias in node.names:
        if prefix is None:
            name = alias.asname or alias.name.split(".")[0]
            _bind(module, scope.function, name, Binding(node, imported=alias.name if alias.asname else name))
        elif alias.name == "*":
            module.stars.append(prefix)
        else:
            dotted = f"{prefix}{'' if prefix.endswith('.') else '.'}{alias.name}"
            _bind(module, scope.function, alias.asname or alias.name, Binding(node, imported=dotted))


def _note_target(
    module: Module,
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
            _bind(module, scope.function, target.id, Binding(statement, value, derived=derived))
    elif isinstance(target, ast.Starred):
        _note_target(module, target.value, value, statement, scope, derived=True)
    elif isinstance(target, (ast.Tuple, ast.List)):
        parts = value.elts if isinstance(value, (ast.Tuple, ast.List)) and not derived else []
        pairwise = len(parts) == len(target.elts) and not any(isinstance(one, ast.Starred) for one in parts)
        for index, one in enumerate(target.elts):
            part = parts[index] if pairwise else value
            _note_target(module, one, part, statement, scope, derived or not pairwise)
    else:
        attribute = self_attribute(target)
        if attribute is not None and scope.holder is not None:
            write = Write(attribute, value, statement, scope.function, derived)
            scope.holder.writes.setdefault(attribute, []).append(write)


_NOTES: dict[type[ast.AST], Callable[[Module, Any, _Scope], _Scope | None]] = {
    ast.Call: _note_call,
    ast.Attribute: _note_attribute,
    ast.ClassDef: _note_class,
    ast.Import: _note_import,
    ast.ImportFrom: _note_import,
    **dict.fromkeys(_FUNCTIONS, _note_function),
    **dict.fromkeys((ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.AugAssign, ast.comprehension), _note_statement),
    **dict.fromkeys((ast.For, ast.AsyncFor, ast.With, ast.AsyncWith), _note_statement),
}
