"""The source of a function: its calls, each with the tests under which it runs, and the expressions of its names.

Only live calls count: a statement is live if it may change what the function returns, or an attribute that another
function reads. Others log, or keep numbers for a loss.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, cast

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
# An expression, and whether it is true where something is evaluated.
Guard = tuple[ast.expr, bool]

# Statements after which the rest of a block does not run.
_LEAVING = (ast.Return, ast.Continue, ast.Break, ast.Raise)
# Functions that are called for their message.
_LOGGING = frozenset({"print", "debug", "info", "warning", "warn", "log", "log_dict", "add_scalar"})


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
    return frozenset(name for name in _loaded(tree, self) if name.startswith("."))


@dataclass(frozen=True, slots=True)
class Call:
    """A call in the source of a function.

    Attributes:
        guards: the tests under which it runs.
        uses: the tests around each place that reads its result, if the result is assigned to a name once.
    """

    node: ast.Call
    guards: tuple[Guard, ...]
    uses: tuple[tuple[Guard, ...], ...]


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """What the search for noise needs to know of a function's source.

    Attributes:
        parameters: by position.
        unchanged: the parameters that are never assigned in the function.
        assigned: the expression of each other name that is assigned once.
        iterated: the expression that each loop variable iterates over.
        imported: for each name that is imported inside, the module, and the name there.
        returned: the expression of a function that is a single `return`.
        calls: those that may change what the function returns.
    """

    parameters: tuple[str, ...]
    unchanged: frozenset[str]
    assigned: Mapping[str, ast.expr]
    iterated: Mapping[str, ast.expr]
    imported: Mapping[str, tuple[str, str | None]]
    returned: ast.expr | None
    calls: tuple[Call, ...]


@lru_cache(maxsize=4096)
def function_source(function: FunctionType, read_elsewhere: frozenset[str]) -> FunctionSource | None:
    """Read a function; None where it has no source.

    Args:
        read_elsewhere: attributes of the first argument that other functions read, each with a dot before it.
    """
    tree = parse(function)
    if tree is None:
        return None
    nodes = [*ast.walk(tree)]
    parameters = tuple(argument.arg for argument in (*tree.args.posonlyargs, *tree.args.args))
    keyword_only = {argument.arg for argument in tree.args.kwonlyargs}
    stores = Counter(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    loads: dict[str, list[ast.Name]] = {}
    assigned: dict[str, ast.expr] = {}
    iterated: dict[str, ast.expr] = {}
    imported: dict[str, tuple[str, str | None]] = {}
    results: dict[ast.AST, str] = {}
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                loads.setdefault(name, []).append(node)
            case ast.Assign(targets=[ast.Name(id=name)], value=expression) if stores[name] == 1:
                assigned[name], results[node] = expression, name
            case ast.For(target=ast.Name(id=name), iter=iterable):
                iterated[name] = iterable
            case ast.ImportFrom(module=str() as module, names=aliases, level=0):
                imported |= {alias.asname or alias.name: (module, alias.name) for alias in aliases}
            case ast.Import(names=aliases):
                imported |= {alias.asname or alias.name: (alias.name, None) for alias in aliases}
            case _:
                pass
    names = {*parameters, *keyword_only}
    return FunctionSource(
        parameters,
        frozenset(name for name in names if not stores[name]),
        {name: expression for name, expression in assigned.items() if name not in names},
        iterated,
        imported,
        _only_return(tree),
        tuple(_live_calls(tree, read_elsewhere, results, loads)),
    )


def _live_calls(
    tree: FunctionNode,
    read_elsewhere: frozenset[str],
    results: Mapping[ast.AST, str],
    loads: Mapping[str, list[ast.Name]],
) -> Iterator[Call]:
    """The calls in live statements.

    Args:
        results: the name that each assignment assigns to.
        loads: the places that read each name.
    """
    nodes = [*ast.walk(tree)]
    parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
    live = _live_statements(tree, read_elsewhere)
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        ancestors = [*_ancestors(node, parents)]
        statement = next(ancestor for ancestor in ancestors if isinstance(ancestor, ast.stmt))
        if statement in live:
            # A call in an inner function runs wherever that function is named.
            inner = next((node for node in ancestors if isinstance(node, ast.FunctionDef) and node is not tree), None)
            name = results.get(statement) if inner is None else inner.name
            uses = loads.get(name, []) if name is not None else []
            yield Call(node, tuple(_guards(node, parents)), tuple(tuple(_guards(use, parents)) for use in uses))


def _ancestors(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> Iterator[ast.AST]:
    while node in parents:
        node = parents[node]
        yield node


def _only_return(tree: FunctionNode) -> ast.expr | None:
    last = tree.body[-1]
    is_only = len(tree.body) == 1 + (ast.get_docstring(tree) is not None)
    return last.value if is_only and isinstance(last, ast.Return) else None


def _guards(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> Iterator[Guard]:
    """What must be true or false for an expression of a function to be evaluated, or to matter."""
    while node in parents:
        parent = parents[node]
        match parent:
            case ast.If() | ast.While():
                if node in parent.body or node in parent.orelse:
                    yield parent.test, node in parent.body
            case ast.IfExp(test=test, body=body):
                if node is not test:
                    yield test, node is body
            case ast.BoolOp(op=op, values=values):
                yield from ((other, isinstance(op, ast.And)) for other in values if other is not node)
            case ast.match_case(pattern=ast.MatchSingleton(value=constant)):
                subject = cast("ast.Match", parents[parent]).subject
                yield ast.Compare(subject, [ast.Is()], [ast.Constant(constant)]), True
            case ast.BinOp(op=ast.Mult(), left=left, right=right):
                yield (left if node is right else right), True
            case _:
                pass
        for block in (getattr(parent, "body", None), getattr(parent, "orelse", None)):
            if isinstance(block, list) and node in block:
                yield from _guards_of_earlier(cast("list[ast.stmt]", block), cast("ast.stmt", node))
        node = parent


def _guards_of_earlier(block: list[ast.stmt], statement: ast.stmt) -> Iterator[Guard]:
    """The tests of earlier branches that would have left the block."""
    for earlier in block[: block.index(statement)]:
        if isinstance(earlier, ast.If):
            if isinstance(earlier.body[-1], _LEAVING):
                yield earlier.test, False
            if earlier.orelse and isinstance(earlier.orelse[-1], _LEAVING):
                yield earlier.test, True


def _live_statements(function: FunctionNode, read_elsewhere: frozenset[str]) -> set[ast.stmt]:
    """The statements that may change the result, or what other functions read of the first argument."""
    self = first_argument(function)
    statements = {node for node in ast.walk(function) if isinstance(node, ast.stmt) and node is not function}
    live: set[ast.stmt] = set()
    needed = set(read_elsewhere)
    while more := {statement for statement in statements - live if _is_live(statement, needed, live, self)}:
        live |= more
        needed.update(name for statement in more for name in _loaded(statement, self))
    return live


def _is_live(statement: ast.stmt, needed: set[str], live: set[ast.stmt], self: str | None) -> bool:
    match statement:
        case ast.Assert() | ast.Pass() | ast.Raise():
            return False
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="register_buffer"), args=[ast.Constant(value=name), *_])):
            return f".{name}" in needed
        case ast.Expr(value=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))):
            return name not in _LOGGING
        case _ if any(isinstance(node, ast.NamedExpr) for node in ast.walk(statement)):
            return True
        case ast.Assign() | ast.AugAssign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            return any(name in needed for target in targets for name in _stored(target, self))
        case ast.If() | ast.While() | ast.For():
            stored = _stored(statement.target, self) if isinstance(statement, ast.For) else ()
            return any(name in needed for name in stored) or any(
                inner in live for inner in (*statement.body, *statement.orelse)
            )
        case _:
            return True


def _stored(target: ast.expr, self: str | None) -> Iterator[str]:
    """The names that are assigned or written into."""
    match target:
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                yield from _stored(part, self)
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == self:
            yield f".{attribute}"
        case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.Starred(value=value):
            yield from _stored(value, self)
        case ast.Name(id=name):
            yield name
        case _:
            pass


def _loaded(node: ast.AST, self: str | None) -> Iterator[str]:
    """The names that the expressions of a statement read, or those of a whole function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and isinstance(node, ast.stmt) and not isinstance(node, FunctionNode):
            continue
        match child:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=ast.Load()) if name == self:
                yield f".{attribute}"
            case ast.Name(id=name):
                yield name
            case _:
                pass
        yield from _loaded(child, self)
