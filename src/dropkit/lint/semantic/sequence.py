"""Layers in a row: which layer runs before or after another in a Sequential, a list, or calls that append."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.lint.semantic.expressions import literal
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.moved_layers import is_moved_by, unmoved
from dropkit.lint.semantic.syntax_tree import cached_per_file, end

# Directions in a row.
BEFORE, AFTER = -1, 1


def adjacent_layer(source: SourceFile, layer: ast.expr, step: int) -> ast.Call | None:
    """The layer that runs directly BEFORE or AFTER `layer`; None if that is not known.

    Rows of layers are the arguments of a Sequential, lists and OrderedDicts of them, and calls of `append`, `extend`
    and `add_module` that follow one another.
    """

    def row_element(node: ast.AST, parent: ast.AST) -> ast.AST | None:
        return None if is_moved_by(source, node, parent) else _row_element(node, parent)

    element = source.search_ancestors(layer, row_element, adjacent_layer) or layer
    row = source.parent(element)
    if isinstance(row, ast.Call) and source.last_name(row) in ("append", "add_module"):
        return _end_of_next_row(source, row, step)
    if isinstance(row, ast.Call) and source.last_name(row) == "Sequential":
        outer = source.parent(row)
        if isinstance(outer, (ast.List, ast.Call)) and _neighbour(source, row, element, step) is None:
            return adjacent_layer(source, row, step)
    elif not isinstance(row, (ast.List, ast.Tuple)) or not _runs_in_order(source, row):
        return None
    neighbour = _neighbour(source, row, element, step)
    if neighbour is not None:
        return end_layer(source, _without_name(neighbour), step)
    return _end_of_next_row(source, row, step) if isinstance(row, ast.List) else None


def nearest_layer(source: SourceFile, layer: ast.expr, step: int, skipped: frozenset[str]) -> ast.Call | None:
    """The first layer BEFORE or AFTER `layer` in the row whose dotted name is not among the `skipped`."""
    known = source.caches[nearest_layer, skipped]
    passed: list[ast.expr] = []
    current: ast.expr = layer
    while (current, step) not in known:
        passed.append(current)
        following = adjacent_layer(source, current, step)
        if following is None or source.called(following) not in skipped:
            known[current, step] = following
        else:
            current = following
    nearest = known[current, step]
    known.update(dict.fromkeys([(layer, step) for layer in passed], nearest))
    return nearest


@cached_per_file
def end_layer(source: SourceFile, layer: ast.expr | None, step: int) -> ast.Call | None:
    """The layer itself; of a Sequential its last layer, or for a `step` of AFTER its first."""
    chosen = alternatives(source, layer)
    while len(chosen) == 1 and isinstance(chosen[0], ast.Call):
        if source.called(chosen[0]) != "torch.nn.Sequential":
            return chosen[0]
        inner = list(_elements(source, chosen[0].args))
        if not inner:
            return None
        chosen = alternatives(source, inner[0 if step > 0 else -1])
    return None


def alternatives(source: SourceFile, value: ast.expr | None) -> list[ast.expr | None]:
    """The values of a conditional expression; None and Identity, which do nothing, are left out beside others.

    Layers are returned without the moves around them.
    """
    value = unmoved(source, value)
    if not isinstance(value, ast.IfExp):
        return [] if literal(value) is None else [value]
    values: list[ast.expr | None] = []
    pending: list[ast.expr | None] = [value]
    while pending:
        branch = unmoved(source, pending.pop())
        if isinstance(branch, ast.IfExp):
            pending += [branch.orelse, branch.body]
        elif branch is not None and literal(branch) is not None and source.called(branch) != "torch.nn.Identity":
            values.append(branch)
    return values


def row_around(source: SourceFile, layer: ast.expr) -> tuple[ast.Call | None, list[ast.expr]]:
    """The Sequential that a layer stands in, and the end of its row.

    Also one that is made of a list, or filled by `add_module`: then the call that adds the layer, if it is the last.
    """
    element = source.search_ancestors(layer, _row_element) or layer
    row = source.parent(element)
    if isinstance(row, ast.Call) and source.called(row) == "torch.nn.Sequential":
        return row, list(row.args)
    if isinstance(row, ast.List):
        around = source.parent(source.parent(row)) if isinstance(source.parent(row), ast.Starred) else None
        pairs = source.parent(row)
        if source.is_call_of(pairs, "OrderedDict"):
            around = source.parent(pairs)
        if isinstance(around, ast.Call) and source.called(around) == "torch.nn.Sequential":
            return around, list(map(_without_name, row.elts))
    return _row_added_to(source, layer)


def _row_added_to(source: SourceFile, layer: ast.expr) -> tuple[ast.Call | None, list[ast.expr]]:
    statement, function = source.statement(layer), source.function(layer)
    receiver, added = _additions(source, statement)
    if receiver is None or not receiver.isidentifier() or layer not in added:
        return None, []
    last = end(function.node) if function is not None else end(source.tree.body[-1])
    reads = source.names_between(receiver, end(statement), last)
    if source.is_call_of(row := source.parent(layer), "add_module") and isinstance(row, ast.Call):
        is_added_to = any(_additions(source, source.statement(read))[0] == receiver for read in reads[:1])
        is_row = isinstance(row.func, ast.Attribute) and source.is_call_of(
            source.substitute(row.func.value), "Sequential"
        )
        return (row, added) if is_row and not is_added_to else (None, [])
    star = source.parent(reads[0]) if len(reads) == 1 else None
    call = source.parent(star) if isinstance(star, ast.Starred) else None
    return (call, added) if isinstance(call, ast.Call) and source.called(call) == "torch.nn.Sequential" else (None, [])


def _row_element(node: ast.AST, parent: ast.AST) -> ast.AST | None:
    """The element of a row that `node` is part of: the whole conditional expression, or the pair with a name."""
    return None if isinstance(parent, ast.IfExp) or _is_named_layer(parent) else node


def _elements(source: SourceFile, arguments: list[ast.expr]) -> Iterator[ast.expr]:
    """The layers among the arguments of a Sequential: plain, `*[...]`, or `OrderedDict([(name, layer), ...])`."""
    for argument in arguments:
        if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.List):
            yield from map(_without_name, argument.value.elts)
        elif isinstance(argument, ast.Call) and source.last_name(argument) == "OrderedDict":
            pairs = argument.args[0] if argument.args else None
            yield from map(_without_name, pairs.elts if isinstance(pairs, ast.List) else [argument])
        else:
            yield argument


def _without_name(element: ast.expr) -> ast.expr:
    """The layer of a `(name, layer)` pair."""
    return element.elts[1] if isinstance(element, ast.Tuple) and _is_named_layer(element) else element


def _is_named_layer(node: ast.AST | None) -> bool:
    return (
        isinstance(node, ast.Tuple)
        and len(node.elts) == 2
        and isinstance(node.elts[0], (ast.Constant, ast.JoinedStr, ast.BinOp))
        and isinstance(node.elts[1], (ast.Call, ast.IfExp))
    )


def _runs_in_order(source: SourceFile, row: ast.List | ast.Tuple) -> bool:
    """Whether a list holds layers that run in order: unlike a ModuleList, or an argument of something unknown."""
    parent = source.parent(row)
    if isinstance(parent, ast.Starred):
        return source.is_call_of(source.parent(parent), "Sequential")
    if isinstance(parent, ast.Call):
        return source.is_call_of(parent, "OrderedDict", "extend", "Sequential")
    return isinstance(row, ast.List) and isinstance(parent, (ast.Assign, ast.AugAssign, ast.AnnAssign))


def _neighbour(
    source: SourceFile, row: ast.List | ast.Tuple | ast.Call, element: ast.AST, step: int
) -> ast.expr | None:
    """The element before or after `element` in its row."""
    elements = row.args if isinstance(row, ast.Call) else row.elts
    place = _places(source, row).get(element)
    return elements[place + step] if place is not None and 0 <= place + step < len(elements) else None


@cached_per_file
def _places(_: SourceFile, row: ast.List | ast.Tuple | ast.Call) -> dict[ast.AST, int]:
    elements = row.args if isinstance(row, ast.Call) else row.elts
    return {element: index for index, element in enumerate(elements)}


def _end_of_next_row(source: SourceFile, row: ast.expr, step: int) -> ast.Call | None:
    """The near end of what the statement before or after the one with `row` adds to the same list."""
    statement: ast.AST = source.statement(row)
    receiver, _ = _additions(source, statement)
    while receiver is not None:
        block, place = source.position(statement)
        if 0 <= place + step < len(block):
            other, added = _additions(source, block[place + step])
            near = added[-1 if step < 0 else 0] if other == receiver and added else None
            return end_layer(source, _without_name(near), step) if near is not None else None
        parent = source.parent(statement)
        if not isinstance(parent, ast.If) or parent.orelse:
            return None
        statement = parent
    return None


def _additions(source: SourceFile, statement: ast.AST) -> tuple[str | None, list[ast.expr]]:
    """The list that a statement adds layers to, as source, and these layers."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=receiver, attr="append"), args=[layer])):
            return source.text.of(receiver), [layer]
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=receiver, attr="add_module"), args=[_, layer])):
            return source.text.of(receiver), [layer]
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=receiver, attr="extend"), args=[ast.List(elts=row)])):
            return source.text.of(receiver), row
        case (
            ast.AugAssign(target=receiver, value=ast.List(elts=row))
            | ast.Assign(targets=[receiver], value=ast.List(elts=row))
        ):
            return source.text.of(receiver), row
        case _:
            return None, []
