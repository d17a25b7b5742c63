"""The syntax tree of one file: what is around each node, and caches of what was computed for the file."""

from __future__ import annotations

import ast
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from dropkit.lint.semantic.source_text import Text

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)
_Tree = TypeVar("_Tree", bound="SyntaxTree")


def cached_per_file(
    function: Callable[Concatenate[_Tree, _Arguments], _Result],
) -> Callable[Concatenate[_Tree, _Arguments], _Result]:
    """Cache the results of a function in the file, its first argument, by the other arguments."""

    @wraps(function)
    def cached(source: _Tree, *key: _Arguments.args, **no_names: _Arguments.kwargs) -> _Result:
        known = source.caches[function]
        if key in known:
            return known[key]
        result = known[key] = function(source, *key, **no_names)
        return result

    return cached


def cached_per_list(function: Callable[[_Tree, list[_Item]], _Result]) -> Callable[[_Tree, list[_Item]], _Result]:
    """As `cached_per_file`, for a function of one list, by the identity of the list."""

    @wraps(function)
    def cached(source: _Tree, items: list[_Item]) -> _Result:
        known, identity = source.caches[function], id(items)
        if identity not in known:
            # The list is kept, so that no other one gets its identity.
            known[identity] = items, function(source, items)
        return known[identity][1]

    return cached


def grouped(pairs: Iterable[tuple[_Key, _Result]]) -> dict[_Key, list[_Result]]:
    """The second parts of pairs, by the first parts."""
    groups: dict[_Key, list[_Result]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


class SyntaxTree:
    """A parsed file and the way from each node to those around it."""

    def __init__(self, path: str, text: Text, tree: ast.Module, parents: dict[ast.AST | None, ast.AST]) -> None:
        self.path = path
        self.text = text
        self.tree = tree
        self._parents = parents
        self._blocks: dict[ast.AST, tuple[list[ast.stmt], int]] = {}
        # The results of each function for this file, by its other arguments.
        self.caches: defaultdict[Hashable, dict[Any, Any]] = defaultdict(dict)

    def break_cycles(self) -> None:
        """Break all reference cycles, so that the memory of the tree is freed at once."""
        for table in (self.caches, self._blocks, self._parents):
            table.clear()
        if "mentions" in vars(self):
            self.mentions.clear()

    def parent(self, node: ast.AST | None) -> ast.AST | None:
        """The node directly around `node`; None around the file, and for None."""
        return self._parents.get(node)

    def parents(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes around `node`, from the nearest to the file."""
        parent = self.parent(node)
        while parent is not None:
            yield parent
            parent = self.parent(parent)

    def search_ancestors(
        self, node: ast.AST, step: Callable[[ast.AST, ast.AST], _Result | None], key: Hashable = None
    ) -> _Result | None:
        """The first result of `step(node, parent)` that is not None, on the way from `node` to the root of the tree.

        Results are cached under `key`, or `step` itself: each step is taken once, however many nodes are below it.
        """
        known: dict[ast.AST, _Result | None] = self.caches[key or step]
        passed: list[ast.AST] = []
        result: _Result | None = None
        current: ast.AST | None = node
        while current is not None and result is None:
            if current in known:
                result = known[current]
                break
            passed.append(current)
            parent = self._parents.get(current)
            result = step(current, parent) if parent is not None else None
            current = parent
        known.update(dict.fromkeys(passed, result))
        return result

    def user(self, node: ast.AST, containers: tuple[type[ast.AST], ...]) -> ast.AST | None:
        """The parent of `node`, or of the outermost of the `containers` that it is in."""

        def outermost(node: ast.AST, parent: ast.AST) -> ast.AST | None:
            return None if isinstance(parent, containers) else node

        return self.parent(self.search_ancestors(node, outermost, containers) or node)

    def statement(self, node: ast.AST) -> ast.stmt:
        """The statement that `node` is, or is part of."""
        if isinstance(node, ast.stmt):
            return node
        statement = self.search_ancestors(node, _enclosing_statement)
        assert statement is not None, "every expression is part of a statement"
        return statement

    def block(self, statement: ast.AST) -> list[ast.stmt]:
        """The list of statements that `statement` is in."""
        return self.position(statement)[0]

    def position(self, statement: ast.AST) -> tuple[list[ast.stmt], int]:
        """The list of statements that `statement` is in, and its index; an empty list for any other node."""
        if statement not in self._blocks:
            parent = self.parent(statement)
            for name in ("body", "orelse", "finalbody", "handlers"):
                block: Any = getattr(parent, name, None)
                if isinstance(block, list):
                    for index, sibling in enumerate(cast("list[ast.stmt]", block)):
                        self._blocks[sibling] = block, index
        return self._blocks.get(statement, ([], 0))

    @cached_property
    def mentions(self) -> dict[str, list[ast.Name]]:
        """Every use of each name, in the order of the text."""
        nodes = (node for node in ast.walk(self.tree) if isinstance(node, ast.Name) and node in self._parents)
        mentions = grouped((node.id, node) for node in nodes)
        for names in mentions.values():
            names.sort(key=start)
        return mentions

    def names_between(self, name: str, begin: tuple[int, int], end: tuple[int, int]) -> list[ast.Name]:
        """The uses of a name between two positions in the text."""
        names = self.mentions.get(name, [])
        return names[bisect_left(names, begin, key=start) : bisect_left(names, end, key=start)]

    def reads_in(self, node: ast.AST, name: str) -> list[ast.Name]:
        """The reads of a name within `node`."""
        return [use for use in self.names_between(name, start(node), end(node)) if isinstance(use.ctx, ast.Load)]

    @cached_per_file
    def _defaults(self, arguments: ast.arguments) -> dict[ast.AST, ast.expr | None]:
        positional = [*arguments.posonlyargs, *arguments.args]
        given = [*([None] * (len(positional) - len(arguments.defaults))), *arguments.defaults]
        by_keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        return dict([*zip(positional, given, strict=True), *by_keyword])

    def default(self, parameter: ast.AST) -> ast.expr | None:
        """The default value of a parameter; None if it has none, or `parameter` is none."""
        arguments = self.parent(parameter)
        return self._defaults(arguments).get(parameter) if isinstance(arguments, ast.arguments) else None


def start(node: ast.AST) -> tuple[int, int]:
    """Line and column where an expression or statement begins."""
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def end(node: ast.AST) -> tuple[int, int]:
    """Line and column where a node ends, with all blocks in it."""
    return getattr(node, "end_lineno", None) or 0, getattr(node, "end_col_offset", None) or 0


def bound_at(statement: ast.AST) -> tuple[int, int]:
    """The line and column from which on what a statement binds can be used: in a `for` or `with`, from its header."""
    return (
        start(statement) if isinstance(statement, (ast.For, ast.AsyncFor, ast.With, ast.AsyncWith)) else end(statement)
    )


def exits(body: list[ast.stmt]) -> bool:
    """Whether the last statement of a block returns, raises, or goes on with a loop."""
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))


def _enclosing_statement(_: ast.AST, parent: ast.AST) -> ast.stmt | None:
    return parent if isinstance(parent, ast.stmt) else None
