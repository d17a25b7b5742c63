"""Where the value of a local name comes from, and where it goes."""

from __future__ import annotations

import ast
from bisect import bisect_right

from dropkit.lint.semantic.definitions import FUNCTIONS, Binding, FunctionDefinition
from dropkit.lint.semantic.last_round import skips_last_round
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import bound_at, cached_per_file, end, exits, start

# A value with more sources than this counts as unknown: a rule that is not sure is silent, and the work on long
# functions stays linear.
MOST = 32


def origins(source: SourceFile, expression: ast.expr | None) -> list[ast.expr | None]:
    """The expressions that `expression` may have its value from: itself, or those assigned to a local name.

    None among them stands for an unknown one.
    """
    sources: dict[ast.expr | None, None] = {}
    seen: set[ast.expr] = set()
    pending = [expression]
    while pending:
        node = pending.pop()
        if not isinstance(node, ast.Name):
            sources[node] = None
        elif node not in seen:
            seen.add(node)
            values = [None if binding.derived else binding.value for binding in reaching(source, node)]
            if not values or None in values:
                sources[None] = None
            pending += [value for value in reversed(values) if value is not None]
        if len(seen) > MOST or len(sources) > MOST:
            return [None]
    return list(sources)


@cached_per_file
def reaching(source: SourceFile, name: ast.Name) -> list[Binding]:
    """The bindings of `name` in its function that reach it: not overwritten, and not in another branch."""
    use, path = start(name), _path(source, name)
    around = {id(block) for block in path.values()}
    bindings: list[Binding] = []
    # The blocks of the bindings so far, which overwrite earlier ones in the same blocks and further in.
    overwritten: set[int] = set()
    for count, binding in enumerate(source.before(source.bindings(name), name)):
        if count == MOST:
            bindings.append(Binding(name, derived=True))
            break
        statement = binding.statement
        if not bound_at(statement) <= use or _excludes(source, statement, path):
            continue
        if overwritten.isdisjoint(_blocks(source, statement)):
            bindings.append(binding)
        if not isinstance(statement, (ast.For, ast.AsyncFor, ast.arg)):
            block = id(source.block(statement))
            overwritten.add(block)
            if block in around:
                break  # It always runs before the use and overwrites all bindings before it.
    return bindings[::-1]


def reads_after(source: SourceFile, name: str, node: ast.AST) -> list[ast.Name]:
    """Reads of the local `name` in its function that come after `node` and before the name is bound again."""
    function = source.function(node)
    if function is None:
        return []
    statement = source.statement(node)
    block = source.block(statement)
    if not block:
        return []
    until = min(end(block[-1]), _next_binding(source, function, name, bound_at(statement)))
    return [read for read in source.names_between(name, bound_at(node), until) if isinstance(read.ctx, ast.Load)]


def _next_binding(
    source: SourceFile, function: FunctionDefinition, name: str, after: tuple[int, int]
) -> tuple[int, int]:
    """Where the local `name` is bound next."""
    ends = _binding_ends(source, function, name)
    index = bisect_right(ends, after)
    return ends[index] if index < len(ends) else (1 << 60, 0)


@cached_per_file
def _binding_ends(_: SourceFile, function: FunctionDefinition, name: str) -> list[tuple[int, int]]:
    return sorted(bound_at(binding.statement) for binding in function.names.get(name, []))


def readers(source: SourceFile, statement: ast.stmt, name: str) -> list[ast.Name]:
    """Reads of the local `name`, in any block, that may have the value which `statement` binds to it."""
    function = source.function(statement)
    return _readers(source, function, name).get(statement, []) if function is not None else []


@cached_per_file
def _readers(source: SourceFile, function: FunctionDefinition, name: str) -> dict[ast.AST, list[ast.Name]]:
    """By binding, the reads of a name in a function that may have its value."""
    reads: dict[ast.AST, list[ast.Name]] = {}
    for read in source.reads_in(function.node, name):
        for statement in dict.fromkeys(binding.statement for binding in reaching(source, read)):
            reads.setdefault(statement, []).append(read)
    return reads


def _path(source: SourceFile, node: ast.AST) -> dict[ast.AST, list[ast.stmt]]:
    """Each compound statement around `node`, with the one of its blocks that `node` is in.

    An `if` with all its `elif` is one statement, as it is written.
    """
    function = source.function(node)
    if isinstance(node, ast.arg) or (function is not None and isinstance(function.node, ast.Lambda)):
        return {}
    if isinstance(node, ast.stmt):
        return _path_of(source, node)
    return _path_of(source, _chain(source, source.statement(node)))


@cached_per_file
def _path_of(source: SourceFile, statement: ast.AST) -> dict[ast.AST, list[ast.stmt]]:
    path: dict[ast.AST, list[ast.stmt]] = {}
    node = statement
    while (parent := source.parent(node)) is not None:
        parent = _chain(source, parent)
        if isinstance(node, ast.stmt):
            path[parent] = source.block(node)
        if isinstance(parent, FUNCTIONS):
            break
        node = parent
    return path


def _chain(source: SourceFile, node: ast.AST) -> ast.AST:
    """The first `if` of the chain that an `elif` belongs to; any other node itself."""
    return (source.search_ancestors(node, _first_if) or node) if isinstance(node, ast.If) else node


def _first_if(node: ast.AST, parent: ast.AST) -> ast.AST | None:
    return None if isinstance(parent, ast.If) and parent.orelse[:1] == [node] and len(parent.orelse) == 1 else node


def _excludes(source: SourceFile, statement: ast.AST, path: dict[ast.AST, list[ast.stmt]]) -> bool:
    """Whether no run passes `statement` and then `path`: other arms of one `if`, or a block that leaves before.

    Nor does the value of an early round of a loop, where the last round always sets another.
    """
    is_in_loop = False
    for parent, block in _path(source, statement).items():
        if parent in path:
            if isinstance(parent, ast.If) and block is not path[parent]:
                return True
        elif exits(block):
            return True
        is_in_loop |= parent not in path and isinstance(parent, (ast.For, ast.AsyncFor))
    return is_in_loop and skips_last_round(source, statement, path)


@cached_per_file
def _blocks(source: SourceFile, statement: ast.AST) -> set[int]:
    """The blocks, by identity, that a binding is in; for a parameter the body of its function."""
    if isinstance(statement, ast.arg):
        function = source.parent(source.parent(statement))
        return {id(function.body)} if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) else set()
    return {id(block) for block in _path(source, statement).values()}
