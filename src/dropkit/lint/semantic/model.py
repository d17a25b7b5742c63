"""The semantic model of one file: its definitions, and what each name in it stands for.

It gives rules the classes, functions, attributes and calls by name, the `parent` of a node, and the `dotted` name that
an expression stands for.
"""

from __future__ import annotations

import ast
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import cast

from dropkit import catalog
from dropkit.lint.semantic.definitions import (
    FUNCTIONS,
    MAX_ANCESTORS,
    Binding,
    ClassDefinition,
    FunctionDefinition,
    Write,
)
from dropkit.lint.semantic.expressions import last_name, last_part, self_attribute
from dropkit.lint.semantic.index import index_tree
from dropkit.lint.semantic.source_text import Text, Unreadable
from dropkit.lint.semantic.syntax_tree import SyntaxTree, bound_at, cached_per_list, grouped, start

# No name of a library has so many parts and aliases; longer chains of attributes are not names.
_MAX_PARTS = 20


class SourceFile(SyntaxTree):
    """A parsed file. Nothing in it is imported or run."""

    def __init__(self, path: str, text: Text, tree: ast.Module, always_on: tuple[str, ...] = ()) -> None:
        index = index_tree(tree, self.dotted)
        super().__init__(path, text, tree, index.parents)
        # Patterns from the settings: names of classes and functions whose dropout stays on.
        self.always_on = always_on
        self.classes: list[ClassDefinition] = index.classes
        self.functions: list[FunctionDefinition] = index.functions
        self.all_calls: list[ast.Call] = index.calls
        self.attributes: dict[str, list[ast.Attribute]] = index.attributes
        self.stars: list[str] = index.stars
        self.names: dict[str, list[Binding]] = index.names
        self.by_node: dict[ast.AST | None, FunctionDefinition | ClassDefinition] = index.by_node
        self._dotted: dict[ast.AST, str | None] = {}
        self._roots: dict[int | str, ast.expr | str | None] = {}
        self._link_classes()

    def break_cycles(self) -> None:
        """Break all reference cycles, so that the memory of the tree is freed at once."""
        super().break_cycles()
        for cls in self.classes:
            for table in (cls.methods, cls.writes, cls.reads, cls.own_calls, cls.mro, cls.subclasses):
                table.clear()
        for function in self.functions:
            function.names.clear()
        tables = (self.attributes, self.names, self.by_node, self._dotted, self._roots)
        for table in (self.calls, self.classes, self.functions, self.all_calls, *tables):
            table.clear()

    def _link_classes(self) -> None:
        """Set the mro, the subclasses and the external bases of each class."""
        bases: dict[ClassDefinition, list[ClassDefinition]] = {}
        for cls in self.classes:
            local = [self.local_class(base) for base in cls.node.bases]
            bases[cls] = [base for base in local if base is not None]
            outside = [base for base, cls_ in zip(cls.node.bases, local, strict=True) if cls_ is None]
            names = [self.dotted(base) or self._unbound_name(base) for base in outside]
            cls.own_external_bases = [name for name in names if name]
        for cls in self.classes:
            cls.mro = _ancestors(cls, bases)
            for ancestor in cls.mro[1:]:
                ancestor.subclasses.append(cls)

    def _unbound_name(self, base: ast.expr) -> str | None:
        """The name of a base that this file does not bind: a star import may, or the file is part of another."""
        return base.id if isinstance(base, ast.Name) and not self.bindings(base) else None

    @cached_property
    def calls(self) -> dict[str, list[ast.Call]]:
        """All calls, in the order of the text, by the last part of what they call: see `last_name`."""
        named = (call for call in self.all_calls if isinstance(call.func, (ast.Name, ast.Attribute)))
        return grouped((self.last_name(call.func), call) for call in named)

    def calls_of(self, *names: str) -> list[ast.Call]:
        """The calls of what these dotted names stand for, whatever this file calls it."""
        return [call for name in names for call in self.calls.get(last_part(name), []) if self.called(call) == name]

    def function(self, node: ast.AST) -> FunctionDefinition | None:
        """The function whose body `node` is in; decorators, defaults and annotations are outside of their function."""
        return self.search_ancestors(node, self._body_of, SourceFile.function)

    def _body_of(self, node: ast.AST, parent: ast.AST) -> FunctionDefinition | None:
        """The function whose body, or a statement of it, `node` is."""
        is_body = isinstance(parent, FUNCTIONS) and (
            node is parent.body if isinstance(parent, ast.Lambda) else isinstance(node, ast.stmt)
        )
        function = self.by_node[parent] if is_body else None
        return function if isinstance(function, FunctionDefinition) else None

    def self_name(self, node: ast.AST) -> str | None:
        """The name of the first parameter of the method around `node`; None outside of methods, or if it is rebound."""
        function = self.function(node)
        name = function.method.self_name if function is not None else None
        while function is not None and name is not None:
            bound = len(function.names.get(name, []))
            if bound > (function is function.method):
                return None
            function = function.within if function is not function.method else None
        return name

    def owner(self, node: ast.AST) -> ClassDefinition | None:
        """The class of the method around `node`, or around the closure that `node` is in."""
        function = self.function(node)
        return function.method.owner if function is not None else None

    def module(self, node: ast.AST) -> ClassDefinition | None:
        """The class around `node`, as `owner` has it, if it is a torch Module."""
        owner = self.owner(node)
        return owner if owner is not None and owner.is_module else None

    def local_class(self, expression: ast.expr) -> ClassDefinition | None:
        """The class of this file that a plain name stands for."""
        if not isinstance(expression, ast.Name):
            return None
        bindings = self.bindings(expression)
        parent = self.parent(expression)
        if isinstance(parent, ast.ClassDef):
            # A base is evaluated before the class is made: `class Dropout(Dropout)` does not inherit from itself.
            if any(True for _ in self.before(bindings, expression)):
                return _nearest_class(self, self.before(bindings, expression))
            return _nearest_class(self, (binding for binding in reversed(bindings) if binding.statement is not parent))
        return self._last_class(bindings)

    @cached_per_list
    def _last_class(self, bindings: list[Binding]) -> ClassDefinition | None:
        return _nearest_class(self, reversed(bindings))

    def before(self, bindings: list[Binding], use: ast.AST) -> Iterator[Binding]:
        """The bindings of a name that come before `use`, the last one first; functions can be used before they are."""
        position = start(use)
        for index in range(self._count_before(bindings, position) - 1, -1, -1):
            if _end(bindings[index].statement) <= position:
                yield bindings[index]

    def _count_before(self, bindings: list[Binding], use: tuple[int, int]) -> int:
        """The number of a name's bindings up to the last one before `use`."""
        ends, farthest = self._ends(bindings)
        count = bisect_right(ends, use)
        return farthest[count - 1] if count else 0

    @cached_per_list
    def _ends(self, bindings: list[Binding]) -> tuple[list[tuple[int, int]], list[int]]:
        """Where bindings end, in order, and the number of bindings up to the last one that ends there or before."""
        ends = sorted((_end(binding.statement), index) for index, binding in enumerate(bindings))
        return [end for end, _ in ends], list(accumulate((index + 1 for _, index in ends), max))

    def bindings(self, name: ast.Name) -> list[Binding]:
        """Every binding of `name` in the nearest scope that has one."""
        function = self.function(name)
        while function is not None:
            if name.id in function.names:
                return function.names[name.id]
            function = function.within
        return self.names.get(name.id, [])

    def value(self, name: ast.Name) -> ast.expr | None:
        """The expression that the last assignment before it binds `name` to; None if it only derives the value."""
        last = next(self.before(self.bindings(name), name), None)
        return last.value if last is not None and not last.derived else None

    def values(self, expression: ast.expr) -> list[ast.expr | None]:
        """Everything that a name or `self.attribute` is set to in this file; None where that is only derived."""
        if isinstance(expression, ast.Name):
            bindings: Sequence[Binding | Write] = self.bindings(expression)
        else:
            attribute, owner = self_attribute(expression), self.owner(expression)
            bindings = owner.all_writes(attribute) if attribute is not None and owner is not None else ()
        return [None if binding.derived else binding.value for binding in bindings]

    def latest_values(self, expression: ast.expr) -> list[ast.expr | None]:
        """The last value assigned to a local name, all values of an attribute of self, or `expression` itself."""
        attribute, owner = self_attribute(expression), self.owner(expression)
        if attribute is not None and owner is not None:
            return owner.values(attribute)
        return [self.value(expression)] if isinstance(expression, ast.Name) else [expression]

    def substitute(self, expression: ast.expr) -> ast.expr:
        """`expression`, or the value last assigned to its name."""
        if isinstance(expression, ast.Name):
            value = self.value(expression)
            if value is not None:
                return value
        return expression

    def dotted(self, expression: ast.AST) -> str | None:
        """The canonical dotted name that an expression like `F.dropout` stands for; None if it is unknown.

        Names of imports and their aliases are known, and the classes of this file, by their own name.
        """
        if expression in self._dotted:
            return self._dotted[expression]
        parts: list[str] = []
        root: ast.expr | str | None = cast("ast.expr", expression)
        for _ in range(_MAX_PARTS):
            if isinstance(root, ast.Attribute):
                parts.append(root.attr)
                root = root.value
            elif isinstance(root, ast.Name):
                root = self._root(root)
            else:
                break
        root = root if isinstance(root, str) else None
        name = catalog.canonical(".".join([root, *reversed(parts)])) if root is not None else None
        self._dotted[expression] = name
        return name

    def last_name(self, expression: ast.AST) -> str:
        """The last part of the name of an expression, or of what it calls: the canonical name, else as written.

        "Dropout" for `nn.Dropout`, and for `Zap` after `from torch.nn import Dropout as Zap`.
        """
        if isinstance(expression, ast.Call):
            expression = expression.func
        return last_part(self.dotted(expression) or "") or last_name(expression)

    def is_call_of(self, node: ast.AST | None, *names: str) -> bool:
        """Whether `node` calls something whose last name is one of these."""
        return isinstance(node, ast.Call) and self.last_name(node) in names

    def called(self, call: ast.AST | None) -> str | None:
        """The dotted name of the function or class that `call` calls; None for what is no call."""
        return self.dotted(call.func) if isinstance(call, ast.Call) else None

    def _root(self, name: ast.Name) -> ast.expr | str | None:
        """What a name stands for: a dotted name, or the expression that it is an alias of."""
        bindings = self.bindings(name)
        key = id(bindings) if bindings else name.id
        if key not in self._roots:
            self._roots[key] = self._bound(name.id, bindings) if bindings else self._unbound(name.id)
        return self._roots[key]

    def _bound(self, name: str, bindings: list[Binding]) -> ast.expr | str | None:
        imported = [binding.imported for binding in bindings if binding.imported is not None]
        if imported:
            # `try: import a as x / except ImportError: import b as x` and the like: torch's if it is among them.
            return next((name for name in imported if name.startswith("torch")), imported[-1])
        if isinstance(bindings[-1].statement, ast.ClassDef):
            return name
        value = bindings[-1].value
        # An alias: Linear = nn.Linear.
        is_alias = isinstance(value, (ast.Attribute, ast.Name)) and len(bindings) == 1 and not bindings[0].derived
        return value if is_alias else None

    def _unbound(self, name: str) -> str | None:
        for star in self.stars:
            if star.startswith("torch"):
                return f"{star}.{name}"
        if self.stars:
            # By convention these are what a star import of another file brings.
            return {"nn": "torch.nn", "F": "torch.nn.functional", "torch": "torch"}.get(name)
        return None


def read(path: str, text: Text, always_on: tuple[str, ...] = ()) -> SourceFile:
    """Parse and index `text`.

    Raises:
        Unreadable: it is not Python of a grammar this interpreter knows.
    """
    tree = text.parse()
    try:
        return SourceFile(path, text, tree, always_on)
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unreadable(str(error) or type(error).__name__) from error


def _ancestors(cls: ClassDefinition, bases: dict[ClassDefinition, list[ClassDefinition]]) -> list[ClassDefinition]:
    """A class and the classes of its file that it inherits from, nearest first."""
    ancestors = {cls: None}
    pending = deque([cls])
    while pending:
        for base in bases[pending.popleft()]:
            if base not in ancestors:
                ancestors[base] = None
                pending.append(base)
                if len(ancestors) > MAX_ANCESTORS:
                    return list(ancestors)
    return list(ancestors)


def _nearest_class(source: SourceFile, bindings: Iterator[Binding]) -> ClassDefinition | None:
    for binding in bindings:
        if isinstance(binding.statement, ast.ClassDef):
            cls = source.by_node[binding.statement]
            assert isinstance(cls, ClassDefinition)
            return cls
    return None


def _end(statement: ast.AST) -> tuple[int, int]:
    """As `bound_at`; but a function or parameter can be used everywhere in its scope."""
    return (0, 0) if isinstance(statement, (*FUNCTIONS, ast.arguments, ast.arg)) else bound_at(statement)
