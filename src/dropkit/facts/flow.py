"""Where a value comes from, and what runs next: operations, layers held in `self`, layers in a row."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from dropkit.facts.definitions import Binding
from dropkit.facts.expressions import argument, self_attribute
from dropkit.facts.module import Module

_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)


@dataclass(frozen=True, slots=True)
class Operation:
    """One application: of a function (`torch.relu`), a method (`.relu`) or a layer (`torch.nn.ReLU`)."""

    name: str
    call: ast.Call
    input: ast.expr | None
    # Where the layer is made: more than once if a condition chooses between layers of one kind.
    layers: tuple[ast.Call, ...] = ()


def operation(module: Module, expression: ast.AST) -> Operation | None:
    """What is applied in `expression`; None where it is no call, or one of something not known.

    A Sequential counts as the last of its layers.
    """
    if not isinstance(expression, ast.Call):
        return None
    first = expression.args[0] if expression.args else argument(expression, None, "input")
    name = module.dotted(expression.func)
    if name is not None:
        return Operation(name, expression, first)
    made = layers(module, expression.func)
    if made:
        made = [last_layer(module, one) for one in made]
        names = {module.called(one) if one is not None else None for one in made}
        only = names.pop() if len(names) == 1 else None
        return Operation(only, expression, first, tuple(one for one in made if one is not None)) if only else None
    if isinstance(expression.func, ast.Attribute) and self_attribute(expression.func) is None:
        return Operation(f".{expression.func.attr}", expression, expression.func.value)
    return None


def layers(module: Module, callee: ast.expr) -> list[ast.Call]:
    """The constructor calls that `self.attribute`, a local name or a call stand for; empty where one is not known."""
    attribute = self_attribute(callee)
    owner = module.owner(callee)
    if isinstance(callee, ast.Call):
        values: list[ast.expr | None] = [callee]
    elif attribute is not None and owner is not None:
        writes = [write for one in owner.lineage for write in one.writes.get(attribute, [])]
        values = [None if write.derived else write.value for write in writes]
    elif isinstance(callee, ast.Name):
        values = [module.value(callee)]
    else:
        return []
    found: list[ast.Call] = []
    for value in values:
        for one in _alternatives(module, value):
            if not isinstance(one, ast.Call) or module.called(one) is None:
                return []
            found.append(one)
    return found


def last_layer(module: Module, layer: ast.expr | None, step: int = -1) -> ast.Call | None:
    """The layer that runs last in `layer` (or first, for a `step` of 1): itself, unless it is a Sequential."""
    chosen = list(_alternatives(module, layer))
    if len(chosen) != 1 or not isinstance(chosen[0], ast.Call):
        return None
    if module.called(chosen[0]) != "torch.nn.Sequential":
        return chosen[0]
    inner = list(_rows(chosen[0].args))
    return last_layer(module, inner[-1 if step < 0 else 0], step) if inner else None


def beside(module: Module, layer: ast.expr, step: int) -> ast.Call | None:
    """The layer that runs just before (`step` -1) or just after (1) `layer`; None where that is not known.

    Rows of layers are the arguments of a Sequential, lists and OrderedDicts of them, and calls of `append`, `extend`
    and `add_module` that follow one another.
    """
    node: ast.AST = layer
    above = module.parent(layer)
    while above is not None and (isinstance(above, ast.IfExp) or _is_named_layer(above)):
        node, above = above, module.parent(above)
    if isinstance(above, (ast.List, ast.Tuple)):
        row, whole = above.elts, above
    elif isinstance(above, ast.Call) and _calls(above, "Sequential"):
        row, whole = above.args, above
        inside = module.parent(above)
        if isinstance(inside, (ast.List, ast.Call)) and not _within(row, node, step):
            return beside(module, above, step)
    elif isinstance(above, ast.Call) and _calls(above, "append", "add_module"):
        return _next_row(module, above, step)
    else:
        return None
    if isinstance(whole, (ast.List, ast.Tuple)) and not _is_row(module, whole):
        return None
    if _within(row, node, step):
        return last_layer(module, _bare(row[row.index(node) + step]), step)  # pyright: ignore[reportArgumentType]
    return _next_row(module, whole, step) if isinstance(whole, ast.List) else None


def origins(module: Module, expression: ast.expr) -> list[ast.expr | None]:
    """The expressions whose value `expression` may be: itself, or all that reach a local name (None: not known)."""
    if not isinstance(expression, ast.Name):
        return [expression]
    found: list[ast.expr | None] = []
    for binding in reaching(module, expression):
        if binding.derived or binding.value is None:
            found.append(None)
        else:
            found += origins(module, binding.value)
    return found or [None]


def reaching(module: Module, name: ast.Name) -> list[Binding]:
    """The bindings in its function that `name` may have its value from: not in another branch, not overwritten."""
    use, there = (name.lineno, name.col_offset), _path(module, name)
    found: list[Binding] = []
    for one in reversed(module.bindings(name)):
        if not _end(one.statement) <= use or _apart(module, one.statement, there):
            continue
        if not any(_overwrites(module, other.statement, one.statement) for other in found):
            found.append(one)
        if not isinstance(one.statement, (ast.For, ast.AsyncFor)):
            block = module.block(one.statement)
            if block and any(block is other for other in there.values()):
                break  # It always runs before the use: what came before it is gone.
    return found[::-1]


def reads_after(module: Module, name: str, node: ast.AST) -> Iterator[ast.Name]:
    """Reads of the local `name` in its function that come after `node` and before the name is bound again."""
    function = module.function(node)
    if function is None:
        return
    statement = module.statement(node)
    end = _end(node)
    rebound = [_end(one.statement) for one in function.names.get(name, []) if _end(one.statement) > _end(statement)]
    limit = min(rebound, default=(1 << 60, 0))
    block = module.block(statement)
    for after in block[block.index(statement) :] if statement in block else ():
        for one in ast.walk(after):
            if not isinstance(one, ast.Name) or one.id != name or not isinstance(one.ctx, ast.Load):
                continue
            if end <= (one.lineno, one.col_offset) < limit:
                yield one


def readers(module: Module, statement: ast.stmt, name: str) -> Iterator[ast.Name]:
    """Reads of the local `name` that may have the value which `statement` binds to it, in whatever block they stand."""
    function = module.function(statement)
    for one in ast.walk(function.node) if function is not None else ():
        if not isinstance(one, ast.Name) or one.id != name or not isinstance(one.ctx, ast.Load):
            continue
        if any(binding.statement is statement for binding in reaching(module, one)):
            yield one


def _alternatives(module: Module, value: ast.expr | None) -> Iterator[ast.expr | None]:
    """The values of a conditional; None and Identity, which stand for nothing, are left out beside others."""
    if isinstance(value, ast.IfExp):
        both = [*_alternatives(module, value.body), *_alternatives(module, value.orelse)]
        yield from [one for one in both if module.called(one or ast.Pass()) != "torch.nn.Identity"]
    elif not (isinstance(value, ast.Constant) and value.value is None):
        yield value


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


def _is_row(module: Module, whole: ast.List | ast.Tuple) -> bool:
    """Whether a list of layers is one that runs in order: not, for one, a ModuleList or an argument of a stranger."""
    above = module.parent(whole)
    if isinstance(above, ast.Starred):
        return _calls(module.parent(above), "Sequential")
    if isinstance(above, ast.Call):
        return _calls(above, "OrderedDict", "extend", "Sequential")
    return isinstance(whole, ast.List) and isinstance(above, (ast.Assign, ast.AugAssign, ast.AnnAssign))


def _within(row: list[ast.expr], node: ast.AST, step: int) -> bool:
    return node in row and 0 <= row.index(node) + step < len(row)  # pyright: ignore[reportArgumentType]


def _next_row(module: Module, whole: ast.expr, step: int) -> ast.Call | None:
    """The layer at the near end of the statement before (or after) the one that `whole` is added by."""
    statement: ast.AST = module.statement(whole)
    receiver, _ = _added(statement)
    while receiver is not None:
        block = module.block(statement)
        index = block.index(statement) + step if statement in block else -1  # pyright: ignore[reportArgumentType]
        if 0 <= index < len(block):
            other, added = _added(block[index])
            near = added[-1 if step < 0 else 0] if other == receiver and added else None
            return last_layer(module, _bare(near), step) if near is not None else None
        above = module.parent(statement)
        if not isinstance(above, ast.If) or above.orelse:
            return None
        statement = above
    return None


def _added(statement: ast.AST) -> tuple[str | None, list[ast.expr]]:
    """The list that a statement adds layers to, as source, and these layers."""
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=to, attr="append"), args=[one])):
            return ast.unparse(to), [one]
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=to, attr="add_module"), args=[_, one])):
            return ast.unparse(to), [one]
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=to, attr="extend"), args=[ast.List(elts=several)])):
            return ast.unparse(to), several
        case (
            ast.AugAssign(target=to, value=ast.List(elts=several))
            | ast.Assign(targets=[to], value=ast.List(elts=several))
        ):
            return ast.unparse(to), several
        case _:
            return None, []


def _end(node: ast.AST) -> tuple[int, int]:
    if isinstance(node, (ast.For, ast.AsyncFor, ast.With, ast.AsyncWith)):
        return node.lineno, node.col_offset
    return getattr(node, "end_lineno", None) or 0, getattr(node, "end_col_offset", None) or 0


def _path(module: Module, node: ast.AST) -> dict[ast.AST, list[ast.stmt]]:
    """From a compound statement around `node` to the one of its blocks that `node` stands in."""
    below, found = node, dict[ast.AST, "list[ast.stmt]"]()
    for above in module.parents(node):
        if isinstance(below, ast.stmt):
            found[above] = module.block(below)
        if isinstance(above, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            break
        below = above
    return found


def _apart(module: Module, statement: ast.AST, there: dict[ast.AST, list[ast.stmt]]) -> bool:
    """Whether no run passes both, in this order: other arms of one `if`, or a block that leaves before the use."""
    for above, block in _path(module, statement).items():
        if above in there:
            if isinstance(above, ast.If) and block is not there[above]:
                return True
        elif block and isinstance(block[-1], _LEAVES):
            return True
    return False


def _overwrites(module: Module, later: ast.AST, earlier: ast.AST) -> bool:
    """Whether `later` always runs after `earlier`: it follows in a block that `earlier` stands in."""
    if later is earlier or isinstance(later, (ast.arg, ast.For, ast.AsyncFor)) or not _end(earlier) < _end(later):
        return False
    if isinstance(earlier, ast.arg):
        return isinstance(module.parent(later), (ast.FunctionDef, ast.AsyncFunctionDef))
    block = module.block(later)
    return any(block is other for other in _path(module, earlier).values())
