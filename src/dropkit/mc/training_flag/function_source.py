"""The source of a function: its syntax tree, and the expressions of its names."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, cast

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def names_in(code: CodeType) -> set[str]:
    """The names in compiled code, also those in inner functions: a quick check before the source is parsed."""
    names = {*code.co_names, *code.co_varnames}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= names_in(constant)
        elif constant == "training":  # as in getattr(self, "training")
            names.add(constant)
        elif isinstance(constant, tuple):  # the names of keyword arguments
            names.update(name for name in cast("tuple[Any, ...]", constant) if isinstance(name, str))
    return names


def parse(function: FunctionType) -> FunctionNode | None:
    """The syntax tree of a function; None where there is no source, as for code that was made by `exec`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    first = tree.body[0] if tree.body else None
    return first if isinstance(first, FunctionNode) else None


def first_argument(function: FunctionNode) -> str | None:
    arguments = [*function.args.posonlyargs, *function.args.args]
    return arguments[0].arg if arguments else None


@lru_cache(maxsize=4096)
def attributes_read(function: FunctionType) -> frozenset[str]:
    """The attributes of its first argument that a function reads, each with a dot before it."""
    tree = parse(function)
    self = None if tree is None else first_argument(tree)
    if tree is None or self is None:
        return frozenset()
    return frozenset(name for name in names_read(ast.walk(tree), self) if name.startswith("."))


def names_read(nodes: Iterable[ast.AST], self: str | None) -> Iterator[str]:
    """Yield the names among some expressions, and the attributes of the first argument, each with a dot before it."""
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=ast.Load()) if name == self:
                yield f".{attribute}"
            case ast.Name(id=name):
                yield name
            case _:
                pass


@dataclass(frozen=True, slots=True, eq=False)
class FunctionSource:
    """What the search for noise needs to know of a function's source.

    Attributes:
        tree: its syntax tree.
        parameters: by position.
        unchanged: the parameters that are never assigned in the function.
        assigned: the expression of each other name that is assigned once.
        iterated: the expression that each loop variable iterates over.
        imported: for each name that is imported inside, the module, and the name there.
        returned: the expression of a function that is a single `return`.
        tests: the expressions whose truth decides which others are evaluated, or matter.
    """

    tree: FunctionNode
    parameters: tuple[str, ...]
    unchanged: frozenset[str]
    assigned: Mapping[str, ast.expr]
    iterated: Mapping[str, ast.expr]
    imported: Mapping[str, tuple[str, str | None]]
    returned: ast.expr | None
    tests: tuple[ast.expr, ...]


@lru_cache(maxsize=4096)
def function_source(function: FunctionType) -> FunctionSource | None:
    """Read a function; None where it has no source."""
    tree = parse(function)
    if tree is None:
        return None
    nodes = [*ast.walk(tree)]
    parameters = tuple(argument.arg for argument in (*tree.args.posonlyargs, *tree.args.args))
    names = {*parameters, *(argument.arg for argument in tree.args.kwonlyargs)}
    stores = Counter(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    assigned: dict[str, ast.expr] = {}
    iterated: dict[str, ast.expr] = {}
    imported: dict[str, tuple[str, str | None]] = {}
    tests: list[ast.expr] = []
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=expression) if stores[name] == 1 and name not in names:
                assigned[name] = expression
            case ast.For(target=ast.Name(id=name), iter=iterable):
                iterated[name] = iterable
            case ast.ImportFrom(module=str() as module, names=aliases, level=0):
                imported |= {alias.asname or alias.name: (module, alias.name) for alias in aliases}
            case ast.Import(names=aliases):
                imported |= {alias.asname or alias.name: (alias.name, None) for alias in aliases}
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) | ast.Match(subject=test):
                tests.append(test)
            case ast.BoolOp():
                tests.append(node)
            case ast.BinOp(op=ast.Mult(), left=left, right=right):
                tests += left, right
            case _:
                pass
    last, is_only = tree.body[-1], len(tree.body) == 1 + (ast.get_docstring(tree) is not None)
    returned = last.value if is_only and isinstance(last, ast.Return) else None
    unchanged = frozenset(name for name in names if not stores[name])
    return FunctionSource(tree, parameters, unchanged, assigned, iterated, imported, returned, tuple(tests))
