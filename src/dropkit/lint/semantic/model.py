"""The index of one file, and what rules ask of it.

A rule asks for calls by the last part of their name, for classes and functions; from a node it goes up by `parent`,
and from an expression to the one dotted name it stands for by `dotted`.
"""

from __future__ import annotations

import ast
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterator
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from dropkit import catalog
from dropkit.lint.semantic.builder import walk
from dropkit.lint.semantic.definitions import FUNCTIONS, Binding, ClassDefinition, FunctionDefinition, mros, subclasses
from dropkit.lint.semantic.expressions import last_name, last_part
from dropkit.lint.semantic.source_text import Text

# No name that a library gives has so many parts and aliases; longer chains of attributes are not names.
_MOST_PARTS = 20

_Key = ParamSpec("_Key")
_Answer = TypeVar("_Answer")


def cached_per_file(
    question: Callable[Concatenate[SourceFile, _Key], _Answer],
) -> Callable[Concatenate[SourceFile, _Key], _Answer]:
    """Make a function remember in the module what it said of the same arguments, so that it is worked out once."""

    @wraps(question)
    def ask(source: SourceFile, *key: _Key.args, **no_names: _Key.kwargs) -> _Answer:
        known = source.cache(question)
        if key not in known:
            known[key] = question(source, *key, **no_names)
        return known[key]

    return ask


class SourceFile:
    """One parsed file. Reading it is one walk; nothing in it is imported or run."""

    def __init__(self, path: str, text: Text, tree: ast.Module, always_on: tuple[str, ...] = ()) -> None:
        self.path = path
        self.text = text
        self.tree = tree
        # Names, as patterns, of classes and functions whose dropout stays on because the user says so.
        self.always_on = always_on
        self.classes: list[ClassDefinition] = []
        self.functions: list[FunctionDefinition] = []
        self.all_calls: list[ast.Call] = []
        self.attributes: dict[str, list[ast.Attribute]] = {}
        self.stars: list[str] = []
        self.names: dict[str, list[Binding]] = {}
        self.above: dict[ast.AST, ast.AST] = {}
        self.is_module_by_class: dict[ast.ClassDef, bool] = {}
        self.by_node: dict[ast.AST, FunctionDefinition | ClassDefinition] = {}
        self._dotted: dict[ast.AST, str | None] = {}
        self._blocks: dict[ast.AST, tuple[list[ast.stmt], int]] = {}
        self._roots: dict[int | str, ast.expr | str | None] = {}
        self._ends: dict[int, tuple[list[tuple[int, int]], list[int]]] = {}
        self._caches: dict[Hashable, dict[Any, Any]] = {}
        walk(self)

    def forget(self) -> None:
        """Let go of the tree: what is left is no circle, and its memory is free at once."""
        for one in self.classes:
            for table in (one.methods, one.writes, one.reads, one.own_calls):
                table.clear()
        for function in self.functions:
            function.names.clear()
        if "mentions" in vars(self):
            self.mentions.clear()
        self.all_calls.clear()
        for table in (
            self.calls,
            self.attributes,
            self.names,
            self.is_module_by_class,
            self.by_node,
            self._dotted,
            self._blocks,
            self._roots,
            self._ends,
            self._caches,
            self.above,
            self.mros,
            self.subclasses,
        ):
            table.clear()
        self.classes.clear()
        self.functions.clear()

    @cached_property
    def calls(self) -> dict[str, list[ast.Call]]:
        """All calls, in the order of the text, by the last part of what they call: see `last_name`."""
        by_name: dict[str, list[ast.Call]] = {}
        for call in self.all_calls:
            if isinstance(call.func, (ast.Name, ast.Attribute)):
                by_name.setdefault(self.last_name(call.func), []).append(call)
        return by_name

    def calls_of(self, *names: str) -> list[ast.Call]:
        """The calls of what these dotted names stand for, whatever this file calls it."""
        return [call for name in names for call in self.calls.get(last_part(name), []) if self.called(call) == name]

    @cached_property
    def mros(self) -> dict[ClassDefinition, list[ClassDefinition]]:
        """Each class with those of this file that it inherits from."""
        return mros(self.classes)

    @cached_property
    def subclasses(self) -> dict[ClassDefinition, list[ClassDefinition]]:
        """For a class those of this file that inherit from it; left out where there are none."""
        return subclasses(self.mros)

    @cached_property
    def mentions(self) -> dict[str, list[ast.Name]]:
        """Every use of a name, in the order of the text."""
        found: dict[str, list[ast.Name]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name) and node in self.above:
                found.setdefault(node.id, []).append(node)
        for names in found.values():
            names.sort(key=start)
        return found

    def names_between(self, name: str, begin: tuple[int, int], end: tuple[int, int]) -> list[ast.Name]:
        """The uses of a name that stand between two places of the text."""
        names = self.mentions.get(name, [])
        return names[bisect_left(names, begin, key=start) : bisect_left(names, end, key=start)]

    def reads_in(self, node: ast.AST, name: str) -> list[ast.Name]:
        """The reads of a name within `node`."""
        return [one for one in self.names_between(name, start(node), whole(node)) if isinstance(one.ctx, ast.Load)]

    def cache(self, question: Hashable) -> dict[Any, Any]:
        """The answers to a question about this file, by its arguments."""
        return self._caches.setdefault(question, {})

    def search_ancestors(
        self, node: ast.AST, step: Callable[[ast.AST, ast.AST], _Answer | None], key: Hashable = None
    ) -> _Answer | None:
        """The first answer of `step(node, parent)` on the way from `node` to the root of the tree.

        Each step is taken once, however many nodes ask: answers are kept under `key`, or `step` itself.
        """
        known: dict[ast.AST, _Answer | None] = self.cache(key or step)
        passed: list[ast.AST] = []
        answer: _Answer | None = None
        current: ast.AST | None = node
        while current is not None and answer is None:
            if current in known:
                answer = known[current]
                break
            passed.append(current)
            parent = self.above.get(current)
            answer = step(current, parent) if parent is not None else None
            current = parent
        known.update(dict.fromkeys(passed, answer))
        return answer

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
        if isinstance(node, ast.stmt):
            return node
        found = self.search_ancestors(node, _statement_above)
        assert found is not None, "every expression stands in a statement"
        return found

    def block(self, statement: ast.AST) -> list[ast.stmt]:
        """The list of statements that `statement` stands in."""
        return self.position(statement)[0]

    def position(self, statement: ast.AST) -> tuple[list[ast.stmt], int]:
        """The list of statements that `statement` stands in, and its place there; an empty list for no statement."""
        if statement not in self._blocks:
            above = self.parent(statement)
            for name in ("body", "orelse", "finalbody", "handlers"):
                block: Any = getattr(above, name, None)
                if isinstance(block, list):
                    for index, one in enumerate(cast("list[ast.stmt]", block)):
                        self._blocks[one] = block, index
        return self._blocks.get(statement, ([], 0))

    def default(self, parameter: ast.AST) -> ast.expr | None:
        """The default value of a parameter; None where it has none, or is not one."""
        arguments = self.parent(parameter)
        return _defaults(self, arguments).get(parameter) if isinstance(arguments, ast.arguments) else None

    def function(self, node: ast.AST) -> FunctionDefinition | None:
        """The function whose body `node` stands in; decorators, defaults and annotations stand outside of theirs."""
        return self.search_ancestors(node, self._body_of, SourceFile.function)

    def _body_of(self, node: ast.AST, above: ast.AST) -> FunctionDefinition | None:
        """The function whose body, or a statement of it, `node` is."""
        inside = isinstance(above, FUNCTIONS) and (
            node is above.body if isinstance(above, ast.Lambda) else isinstance(node, ast.stmt)
        )
        found = self.by_node[above] if inside else None
        return found if isinstance(found, FunctionDefinition) else None

    def self_name(self, node: ast.AST) -> str | None:
        """What the method around `node` calls its object; None outside of methods, and where the name is bound anew."""
        function = self.function(node)
        name = function.method.self_name if function is not None else None
        while function is not None and name is not None:
            bound = len(function.names.get(name, []))
            if bound > (function is function.method):
                return None
            function = function.within if function is not function.method else None
        return name

    def owner(self, node: ast.AST) -> ClassDefinition | None:
        """The class whose method (or a closure in it) `node` stands in."""
        function = self.function(node)
        return function.method.owner if function is not None else None

    def local_class(self, expression: ast.expr) -> ClassDefinition | None:
        """The class of this file that a plain name stands for."""
        if not isinstance(expression, ast.Name):
            return None
        bindings = self.bindings(expression)
        above = self.parent(expression)
        if isinstance(above, ast.ClassDef):
            # A base has its name before the class is made: `class Dropout(Dropout)` is not its own.
            if any(True for _ in self.before(bindings, expression)):
                return _nearest_class(self, self.before(bindings, expression))
            return _nearest_class(self, (one for one in reversed(bindings) if one.statement is not above))
        return self._last_class(bindings)

    def _last_class(self, bindings: list[Binding]) -> ClassDefinition | None:
        known = self.cache(SourceFile._last_class)
        if id(bindings) not in known:
            known[id(bindings)] = _nearest_class(self, reversed(bindings))
        return known[id(bindings)]

    def before(self, bindings: list[Binding], use: ast.AST) -> Iterator[Binding]:
        """Those of a name's bindings that come before `use`, the last one first; functions count wherever they are."""
        at = start(use)
        for index in range(self._count_before(bindings, at) - 1, -1, -1):
            if _end(bindings[index].statement) <= at:
                yield bindings[index]

    def _count_before(self, bindings: list[Binding], use: tuple[int, int]) -> int:
        """How many of a name's bindings there are up to the last one before `use`."""
        if id(bindings) not in self._ends:
            ends = sorted((_end(one.statement), index) for index, one in enumerate(bindings))
            farthest, last = list[int](), 0
            for _, index in ends:
                last = max(last, index + 1)
                farthest.append(last)
            self._ends[id(bindings)] = [end for end, _ in ends], farthest
        ends, farthest = self._ends[id(bindings)]
        count = bisect_right(ends, use)
        return farthest[count - 1] if count else 0

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
        last = next(self.before(self.bindings(name), name), None)
        return last.value if last is not None and not last.derived else None

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
        root: ast.expr | str | None = cast("ast.expr", expression)
        for _ in range(_MOST_PARTS):
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
        """The last part of the name of an expression, or of what it calls: the canonical one, else as it is written.

        "Dropout" for `nn.Dropout`, and for `Zap` after `from torch.nn import Dropout as Zap`.
        """
        if isinstance(expression, ast.Call):
            expression = expression.func
        return last_part(self.dotted(expression) or "") or last_name(expression)

    def is_call_of(self, node: ast.AST | None, *names: str) -> bool:
        """Whether `node` calls something whose last name is one of these."""
        return isinstance(node, ast.Call) and self.last_name(node) in names

    def called(self, call: ast.AST) -> str | None:
        """The dotted name of what `call` calls."""
        return self.dotted(call.func) if isinstance(call, ast.Call) else None

    def _root(self, name: ast.Name) -> ast.expr | str | None:
        """What a name stands for: a dotted name, or the expression that it is another name of."""
        bindings = self.bindings(name)
        key = id(bindings) if bindings else name.id
        if key not in self._roots:
            self._roots[key] = self._bound(name.id, bindings) if bindings else self._unbound(name.id)
        return self._roots[key]

    def _bound(self, name: str, bindings: list[Binding]) -> ast.expr | str | None:
        imported = [binding.imported for binding in bindings if binding.imported is not None]
        if imported:
            # `try: import a as x / except ImportError: import b as x` and the like: torch's if it is among them.
            return next((one for one in imported if one.startswith("torch")), imported[-1])
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
            # What a star brings from a file not seen is by convention these.
            return {"nn": "torch.nn", "F": "torch.nn.functional", "torch": "torch"}.get(name)
        return None


@cached_per_file
def _defaults(_: SourceFile, arguments: ast.arguments) -> dict[ast.AST, ast.expr | None]:
    positional = [*arguments.posonlyargs, *arguments.args]
    given = [*([None] * (len(positional) - len(arguments.defaults))), *arguments.defaults]
    return dict([*zip(positional, given, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)])


def _statement_above(node: ast.AST, above: ast.AST) -> ast.stmt | None:
    return above if isinstance(above, ast.stmt) else None


def _nearest_class(source: SourceFile, bindings: Iterator[Binding]) -> ClassDefinition | None:
    for binding in bindings:
        if isinstance(binding.statement, ast.ClassDef):
            found = source.by_node[binding.statement]
            assert isinstance(found, ClassDefinition)
            return found
    return None


def _end(statement: ast.AST) -> tuple[int, int]:
    """From where on a binding counts: a function or a parameter from the beginning, a block from its header."""
    if isinstance(statement, (*FUNCTIONS, ast.arguments, ast.arg)):
        return 0, 0
    if isinstance(statement, (ast.For, ast.AsyncFor, ast.With, ast.AsyncWith)):
        return statement.lineno, statement.col_offset
    return getattr(statement, "end_lineno", 0), getattr(statement, "end_col_offset", 0)


def start(node: ast.AST) -> tuple[int, int]:
    """Line and column where an expression or statement begins."""
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def whole(node: ast.AST) -> tuple[int, int]:
    """Line and column where a node ends, with all the blocks in it."""
    return getattr(node, "end_lineno", None) or 0, getattr(node, "end_col_offset", None) or 0
