"""Where a value comes from, and what runs next: operations, layers held in `self`, layers in a row."""

from __future__ import annotations

import ast
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

from dropkit.lint.semantic.definitions import FUNCTIONS, Binding, ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.expressions import argument, self_attribute
from dropkit.lint.semantic.model import SourceFile, cached_per_file, start, whole

# So many sources of one value are looked at. Of a value with more it is not known where it comes from: what a rule
# is not sure of it does not report, and the work on long functions stays linear.
MOST = 32
_BLOCKS = (ast.For, ast.AsyncFor, ast.With, ast.AsyncWith)
_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)


@dataclass(frozen=True, slots=True)
class Operation:
    """One application: of a function (`torch.relu`), a method (`.relu`) or a layer (`torch.nn.ReLU`)."""

    name: str
    call: ast.Call
    input: ast.expr | None
    # Where the layer is made: more than once if a condition chooses between layers of one kind.
    layers: tuple[ast.Call, ...] = ()


def operation(source: SourceFile, expression: ast.AST) -> Operation | None:
    """What is applied in `expression`; None where it is no call, or one of something not known.

    A Sequential counts as the last of its layers.
    """
    if not isinstance(expression, ast.Call):
        return None
    first = expression.args[0] if expression.args else argument(expression, None, "input")
    name = source.dotted(expression.func)
    if name is not None:
        return Operation(name, expression, first)
    made = layers(source, expression.func)
    if made:
        made = [last_layer(source, one, -1) for one in made]
        names = {source.called(one) if one is not None else None for one in made}
        only = names.pop() if len(names) == 1 else None
        return Operation(only, expression, first, tuple(one for one in made if one is not None)) if only else None
    if isinstance(expression.func, ast.Attribute) and self_attribute(expression.func) is None:
        return Operation(f".{expression.func.attr}", expression, expression.func.value)
    return None


def layers(source: SourceFile, callee: ast.expr) -> list[ast.Call]:
    """The constructor calls that `self.attribute`, a local name or a call stand for; empty where one is not known."""
    attribute = self_attribute(callee)
    owner = source.owner(callee)
    if isinstance(callee, ast.Call):
        return _constructors(source, [callee])
    if attribute is not None and owner is not None:
        return _held(source, owner, attribute)
    return _constructors(source, [source.value(callee)]) if isinstance(callee, ast.Name) else []


@cached_per_file
def _held(source: SourceFile, owner: ClassDefinition, attribute: str) -> list[ast.Call]:
    """The constructor calls that `self.attribute` is set to."""
    return _constructors(source, [None if one.derived else one.value for one in owner.all_writes(attribute)])


def _constructors(source: SourceFile, values: list[ast.expr | None]) -> list[ast.Call]:
    found: list[ast.Call] = []
    for value in values:
        for one in alternatives(source, value):
            if not isinstance(one, ast.Call) or source.called(one) is None or len(found) == MOST:
                return []
            found.append(one)
    return found


@cached_per_file
def last_layer(source: SourceFile, layer: ast.expr | None, step: int = -1) -> ast.Call | None:
    """The layer that runs last in `layer` (or first, for a `step` of 1): itself, unless it is a Sequential."""
    chosen = alternatives(source, layer)
    while len(chosen) == 1 and isinstance(chosen[0], ast.Call):
        if source.called(chosen[0]) != "torch.nn.Sequential":
            return chosen[0]
        inner = _row_end(chosen[0].args, step)
        if inner is None:
            return None
        chosen = alternatives(source, inner)
    return None


def beside(source: SourceFile, layer: ast.expr, step: int) -> ast.Call | None:
    """The layer that runs just before (`step` -1) or just after (1) `layer`; None where that is not known.

    Rows of layers are the arguments of a Sequential, lists and OrderedDicts of them, and calls of `append`, `extend`
    and `add_module` that follow one another.
    """
    node = source.climb(source.remembered(beside), layer, _outermost) or layer
    above = source.parent(node)
    if isinstance(above, (ast.List, ast.Tuple)):
        row, whole = above.elts, above
    elif isinstance(above, ast.Call) and _calls(above, "Sequential"):
        row, whole = above.args, above
        inside = source.parent(above)
        if isinstance(inside, (ast.List, ast.Call)) and not _within(source, above, row, node, step):
            return beside(source, above, step)
    elif isinstance(above, ast.Call) and _calls(above, "append", "add_module"):
        return _next_row(source, above, step)
    else:
        return None
    if isinstance(whole, (ast.List, ast.Tuple)) and not _is_row(source, whole):
        return None
    if _within(source, whole, row, node, step):
        return last_layer(source, _bare(row[_places(source, whole)[node] + step]), step)
    return _next_row(source, whole, step) if isinstance(whole, ast.List) else None


def _outermost(node: ast.AST, above: ast.AST) -> ast.AST | None:
    """What stands in a row: not a choice of layers, nor a layer with its name, but the whole of it."""
    return None if isinstance(above, ast.IfExp) or _is_named_layer(above) else node


def beyond(source: SourceFile, layer: ast.expr, step: int, skipped: Callable[[str | None], bool]) -> ast.Call | None:
    """The nearest layer in the row before (`step` -1) or behind (1) `layer` whose name is not to be skipped."""
    known = source.remembered(skipped)
    passed: list[ast.expr] = []
    at: ast.expr = layer
    found: ast.Call | None = None
    while True:
        if (at, step) in known:
            found = known[at, step]
            break
        passed.append(at)
        found = beside(source, at, step)
        if found is None or not skipped(source.called(found)):
            break
        at = found
    for one in passed:
        known[one, step] = found
    return found


def origins(source: SourceFile, expression: ast.expr) -> list[ast.expr | None]:
    """The expressions whose value `expression` may be: itself, or all that reach a local name (None: not known)."""
    found: dict[ast.expr | None, None] = {}
    seen: set[ast.expr] = set()
    pending = [expression]
    while pending:
        one = pending.pop()
        if not isinstance(one, ast.Name):
            found[one] = None
        elif one not in seen:
            seen.add(one)
            sources = [None if binding.derived else binding.value for binding in reaching(source, one)]
            if not sources or None in sources:
                found[None] = None
            pending += [value for value in reversed(sources) if value is not None]
        if len(seen) > MOST or len(found) > MOST:
            return [None]
    return list(found)


@cached_per_file
def reaching(source: SourceFile, name: ast.Name) -> list[Binding]:
    """The bindings in its function that `name` may have its value from: not in another branch, not overwritten."""
    use, there = start(name), _path(source, name)
    around = {id(block) for block in there.values()}
    found: list[Binding] = []
    # Where those found stand: they overwrite what was bound in these blocks, and further in, before.
    overwritten: set[int] = set()
    for looked_at, one in enumerate(source.before(source.bindings(name), name)):
        if looked_at == MOST:
            found.append(Binding(name, derived=True))
            break
        if not _end(one.statement) <= use or _apart(source, one.statement, there):
            continue
        if overwritten.isdisjoint(_blocks(source, one.statement)):
            found.append(one)
        if not isinstance(one.statement, (ast.For, ast.AsyncFor, ast.arg)):
            block = id(source.block(one.statement))
            overwritten.add(block)
            if block in around:
                break  # It always runs before the use: what came before it is gone.
    return found[::-1]


def reads_after(source: SourceFile, name: str, node: ast.AST) -> list[ast.Name]:
    """Reads of the local `name` in its function that come after `node` and before the name is bound again."""
    function = source.function(node)
    if function is None:
        return []
    statement = source.statement(node)
    block = source.block(statement)
    if not block:
        return []
    until = min(whole(block[-1]), _next_binding(source, function, name, _end(statement)))
    return [one for one in source.between(name, _end(node), until) if isinstance(one.ctx, ast.Load)]


def _next_binding(
    source: SourceFile, function: FunctionDefinition, name: str, behind: tuple[int, int]
) -> tuple[int, int]:
    """Where the local `name` is bound next."""
    ends = _binding_ends(source, function, name)
    at = bisect_right(ends, behind)
    return ends[at] if at < len(ends) else (1 << 60, 0)


@cached_per_file
def _binding_ends(source: SourceFile, function: FunctionDefinition, name: str) -> list[tuple[int, int]]:
    return sorted(_end(one.statement) for one in function.names.get(name, []))


def readers(source: SourceFile, statement: ast.stmt, name: str) -> list[ast.Name]:
    """Reads of the local `name` that may have the value which `statement` binds to it, in whatever block they stand."""
    function = source.function(statement)
    return _readers(source, function, name).get(statement, []) if function is not None else []


@cached_per_file
def _readers(source: SourceFile, function: FunctionDefinition, name: str) -> dict[ast.AST, list[ast.Name]]:
    """By binding, the reads of a name in a function that may have its value."""
    found: dict[ast.AST, list[ast.Name]] = {}
    for one in source.reads_in(function.node, name):
        for statement in dict.fromkeys(binding.statement for binding in reaching(source, one)):
            found.setdefault(statement, []).append(one)
    return found


def alternatives(source: SourceFile, value: ast.expr | None) -> list[ast.expr | None]:
    """The values of a conditional; None and Identity, which stand for nothing, are left out beside others."""
    if not isinstance(value, ast.IfExp):
        return [] if isinstance(value, ast.Constant) and value.value is None else [value]
    found: list[ast.expr | None] = []
    pending: list[ast.expr] = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, ast.IfExp):
            pending += [one.orelse, one.body]
        elif not (isinstance(one, ast.Constant) and one.value is None) and source.called(one) != "torch.nn.Identity":
            found.append(one)
    return found


def _row_end(arguments: list[ast.expr], step: int) -> ast.expr | None:
    """The layer at one end of the arguments of a Sequential."""
    for one in arguments if step > 0 else reversed(arguments):
        inner = list(_rows([one]))
        if inner:
            return inner[0 if step > 0 else -1]
    return None


def _rows(arguments: list[ast.expr]) -> Iterator[ast.expr]:
    """The layers among the arguments of a Sequential: plain, `*[...]`, or `OrderedDict([(name, layer), ...])`."""
    for one in arguments:
        if isinstance(one, ast.Starred) and isinstance(one.value, ast.List):
            yield from (_bare(inner) for inner in one.value.elts)
        elif isinstance(one, ast.Call) and _calls(one, "OrderedDict"):
            pairs = one.args[0] if one.args else None
            yield from (_bare(inner) for inner in (pairs.elts if isinstance(pairs, ast.List) else [one]))
        else:
            yield one


def _bare(element: ast.expr) -> ast.expr:
    """The layer of a `(name, layer)` pair."""
    return element.elts[1] if isinstance(element, ast.Tuple) and _is_named_layer(element) else element


def _is_named_layer(node: ast.AST | None) -> bool:
    return (
        isinstance(node, ast.Tuple)
        and len(node.elts) == 2
        and isinstance(node.elts[0], (ast.Constant, ast.JoinedStr, ast.BinOp))
        and isinstance(node.elts[1], (ast.Call, ast.IfExp))
    )


def _calls(node: ast.AST | None, *names: str) -> bool:
    """Whether `node` calls something whose last name is one of these."""
    function = node.func if isinstance(node, ast.Call) else None
    last = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    return last in names


def _is_row(source: SourceFile, whole: ast.List | ast.Tuple) -> bool:
    """Whether a list of layers is one that runs in order: not, for one, a ModuleList or an argument of a stranger."""
    above = source.parent(whole)
    if isinstance(above, ast.Starred):
        return _calls(source.parent(above), "Sequential")
    if isinstance(above, ast.Call):
        return _calls(above, "OrderedDict", "extend", "Sequential")
    return isinstance(whole, ast.List) and isinstance(above, (ast.Assign, ast.AugAssign, ast.AnnAssign))


@cached_per_file
def _places(source: SourceFile, whole: ast.List | ast.Tuple | ast.Call) -> dict[ast.AST, int]:
    """Where each element of a row stands."""
    return {one: index for index, one in enumerate(whole.args if isinstance(whole, ast.Call) else whole.elts)}


def _within(
    source: SourceFile, whole: ast.List | ast.Tuple | ast.Call, row: list[ast.expr], node: ast.AST, step: int
) -> bool:
    place = _places(source, whole).get(node)
    return place is not None and 0 <= place + step < len(row)


def _next_row(source: SourceFile, whole: ast.expr, step: int) -> ast.Call | None:
    """The layer at the near end of the statement before (or after) the one that `whole` is added by."""
    statement: ast.AST = source.statement(whole)
    receiver, _ = _added(source, statement)
    while receiver is not None:
        block, place = source.position(statement)
        if 0 <= place + step < len(block):
            other, added = _added(source, block[place + step])
            near = added[-1 if step < 0 else 0] if other == receiver and added else None
            return last_layer(source, _bare(near), step) if near is not None else None
        above = source.parent(statement)
        if not isinstance(above, ast.If) or above.orelse:
            return None
        statement = above
    return None


def _added(source: SourceFile, statement: ast.AST) -> tuple[str | None, list[ast.expr]]:
    """The list that a statement adds layers to, as source, and these layers."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=to, attr="append"), args=[one])):
            return source.text.of(to), [one]
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=to, attr="add_module"), args=[_, one])):
            return source.text.of(to), [one]
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=to, attr="extend"), args=[ast.List(elts=several)])):
            return source.text.of(to), several
        case (
            ast.AugAssign(target=to, value=ast.List(elts=several))
            | ast.Assign(targets=[to], value=ast.List(elts=several))
        ):
            return source.text.of(to), several
        case _:
            return None, []


def _end(node: ast.AST) -> tuple[int, int]:
    return start(node) if isinstance(node, _BLOCKS) else whole(node)


def _path(source: SourceFile, node: ast.AST) -> dict[ast.AST, list[ast.stmt]]:
    """From a compound statement around `node` to the one of its blocks that `node` stands in.

    An `if` with all its `elif` is one statement, as it is written.
    """
    function = source.function(node)
    if isinstance(node, ast.arg) or (function is not None and isinstance(function.node, ast.Lambda)):
        return {}
    if isinstance(node, ast.stmt):
        return _path_of(source, node)
    return _path_of(source, _chain(source, source.statement(node)))


@cached_per_file
def _path_of(source: SourceFile, statement: ast.stmt) -> dict[ast.AST, list[ast.stmt]]:
    found: dict[ast.AST, list[ast.stmt]] = {}
    below: ast.AST = statement
    while (above := source.parent(below)) is not None:
        above = _chain(source, above)
        if isinstance(below, ast.stmt):
            found[above] = source.block(below)
        if isinstance(above, FUNCTIONS):
            break
        below = above
    return found


_Node = TypeVar("_Node", bound=ast.AST)


def _chain(source: SourceFile, node: _Node) -> _Node:
    """The first `if` of those that an `elif` belongs to; any other node itself."""
    if not isinstance(node, ast.If):
        return node
    return cast("_Node", source.climb(source.remembered(_chain), node, _first_if) or node)


def _first_if(node: ast.AST, above: ast.AST) -> ast.AST | None:
    return None if isinstance(above, ast.If) and above.orelse[:1] == [node] and len(above.orelse) == 1 else node


def _apart(source: SourceFile, statement: ast.AST, there: dict[ast.AST, list[ast.stmt]]) -> bool:
    """Whether no run passes both, in this order: other arms of one `if`, or a block that leaves before the use."""
    for above, block in _path(source, statement).items():
        if above in there:
            if isinstance(above, ast.If) and block is not there[above]:
                return True
        elif block and isinstance(block[-1], _LEAVES):
            return True
    return False


@cached_per_file
def _blocks(source: SourceFile, binding: ast.AST) -> set[int]:
    """The blocks, by identity, that a binding stands in; for a parameter the body of its function."""
    if isinstance(binding, ast.arg):
        function = source.parent(source.parent(binding) or binding)
        return {id(function.body)} if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) else set()
    return {id(block) for block in _path(source, binding).values()}
