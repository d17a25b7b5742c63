"""The index of one file, and what rules ask of it.

A rule asks for calls by the last part of their name, for classes and functions; from a node it goes up by `parent`,
and from an expression to the one dotted name it stands for by `dotted`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import cast

from dropkit import catalog
from dropkit.facts.definitions import FUNCTIONS, Binding, Class, Function
from dropkit.facts.text import Text
from dropkit.facts.walk import walk


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
        self.above: dict[ast.AST, ast.AST] = {}
        self.is_module_by_class: dict[ast.ClassDef, bool] = {}
        self.by_node: dict[ast.AST, Function | Class] = {}
        self._dotted: dict[ast.AST, str | None] = {}
        walk(self)

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
            self.is_module_by_class,
            self.by_node,
            self._dotted,
            self.above,
        ):
            table.clear()
        self.classes.clear()
        self.functions.clear()

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node that `node` stands in."""
        return self.above.get(node)

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
            if isinstance(above, FUNCTIONS) and (
                below is above.body if isinstance(above, ast.Lambda) else isinstance(below, ast.stmt)
            ):
                found = self.by_node[above]
                return found if isinstance(found, Function) else None
            below = above
        return None

    def self_name(self, node: ast.AST) -> str | None:
        """What the method around `node` calls its object; None outside of methods."""
        function = self.function(node)
        return function.method.self_name if function is not None else None

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
                    found = self.by_node[statement]
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


def _before(statement: ast.AST, use: ast.AST) -> bool:
    if isinstance(statement, (*FUNCTIONS, ast.arguments, ast.arg)):
        return True
    end = (getattr(statement, "end_lineno", 0), getattr(statement, "end_col_offset", 0))
    if isinstance(statement, (ast.For, ast.AsyncFor, ast.With, ast.AsyncWith)):
        end = (statement.lineno, statement.col_offset)
    return end <= (use.lineno, use.col_offset)  # pyright: ignore[reportAttributeAccessIssue]
