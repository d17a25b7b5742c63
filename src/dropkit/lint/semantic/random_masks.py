"""Masks that code draws by hand: random zeros and ones, what they are multiplied with, and branches they decide on.

A value is followed through local names, attributes of self, and the results of functions of the file.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from dropkit.lint.semantic.data_flow import MOST, origins, readers
from dropkit.lint.semantic.expressions import literal, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile

_SCALARS = ("random.random", "random.uniform")
_UNIFORM = ("torch.rand", "torch.rand_like", "numpy.random.rand", "numpy.random.random", "numpy.random.uniform")
_MASKS = ("torch.bernoulli", "numpy.random.binomial")
_INTEGERS = ("torch.randint", "numpy.random.randint")
_BERNOULLI = ("torch.distributions.", "Bernoulli", "Binomial")
# The last names of all these.
DRAWS = (
    "bernoulli", "bernoulli_", "rand", "rand_like", "uniform_", "uniform", "random", "binomial", "sample", "randint",
    "randperm", "choice",
)  # fmt: skip
# Nodes around a mask, and in a factor, that are looked at.
_FARTHEST = 200
# Names that scale a mask; any other that it is multiplied with holds values.
_SCALE = Vocabulary(
    r"prob\w*|\w*rates?|keep\w*|scal(?:e|ed|ing)|gamma|\w*drop\w*|p|q|eps|numel|math|np|numpy|torch|len|float"
)
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def drops_by_mask(source: SourceFile, draw: ast.Call) -> bool:
    """Whether a call draws zeros and ones that multiply values, or says which values become zero."""
    return _is_mask(source, draw) and _is_applied(source, draw)


def skips_by_chance(source: SourceFile, draw: ast.Call) -> ast.Compare | None:
    """The comparison of a random number that decides whether code is skipped or a value becomes zero."""
    if source.called(draw) not in (*_UNIFORM, *_SCALARS):
        return None
    for value in _followed(source, draw):
        comparison = _end(source, value, lambda _, parent: isinstance(parent, ast.Compare))
        if isinstance(comparison, ast.Compare) and isinstance(comparison.ops[0], _ORDER):
            for test in _followed(source, comparison):
                branch = _end(source, test, lambda _, parent: isinstance(parent, (ast.IfExp, ast.comprehension)))
                if _skips(source, branch, test):
                    return comparison
    return None


def _is_mask(source: SourceFile, call: ast.Call) -> bool:
    """Whether a call draws zeros and ones, or the places of zeros."""
    name, callee = source.called(call), call.func
    if name in _INTEGERS:
        bounds = [literal(argument) for argument in call.args[:2]]
        return bounds == [0, 2] or bounds[:1] == [2]
    if name == "numpy.random.choice":
        return isinstance(values := call.args[0] if call.args else None, ast.List) and set(
            map(literal, values.elts)
        ) == {0, 1}
    if name is not None or not isinstance(callee, ast.Attribute):
        return name in _MASKS or name == "torch.randperm" or (name in _UNIFORM and _is_cut(source, call))
    if callee.attr == "sample":
        made = source.values(callee.value) if self_attribute(callee.value) else origins(source, callee.value)
        return any(origin is not None and _is_bernoulli(source.called(origin)) for origin in made)
    return callee.attr in ("bernoulli", "bernoulli_") or (callee.attr == "uniform_" and _is_cut(source, call))


def _is_bernoulli(name: str | None) -> bool:
    return name is not None and name.startswith(_BERNOULLI[0]) and name.endswith(_BERNOULLI[1:])


def _is_cut(source: SourceFile, draw: ast.expr) -> bool:
    """Whether uniform numbers become zeros and ones: compared with a rate, or rounded down."""
    for value in _followed(source, draw):
        end = _end(source, value, lambda _, parent: _cuts(source, parent) is not None)
        if end is not None and _cuts(source, end):
            return True
    return False


def _cuts(source: SourceFile, node: ast.AST) -> bool | None:
    """Whether `node` compares or rounds; None if a node around it may."""
    if isinstance(node, ast.Compare):
        return isinstance(node.ops[0], _ORDER)
    return source.is_call_of(node, "floor", "floor_", "lt", "gt", "le", "ge") or None


def _is_applied(source: SourceFile, mask: ast.expr) -> bool:
    """Whether `mask`, or a value made from it, multiplies values or fills them with zero."""
    seen: set[str] = set()
    is_place = source.called(mask) == "torch.randperm"
    for value in _followed(source, mask, seen):
        end = _end(source, value, lambda child, parent: _applies(source, child, parent, seen, is_place))
        if (end is not None and not isinstance(end, ast.stmt)) or (
            isinstance(end, ast.AugAssign) and isinstance(end.op, ast.Mult) and not is_place
        ):
            return True
    return False


def _followed(source: SourceFile, value: ast.expr, seen: set[str] | None = None) -> Iterator[ast.expr]:
    """A value and the reads of the names and attributes that hold it, or something made from it; at most `MOST`.

    `seen` gets their names.
    """
    names = seen if seen is not None else set[str]()
    pending: dict[ast.expr, None] = {value: None}
    for count in range(MOST + 1):
        current = next(islice(pending, count, None), None)
        if current is None or len(pending) > MOST:
            return
        yield current
        statement = _end(source, current, lambda _, parent: False)
        if isinstance(statement, ast.Return):
            pending.update(dict.fromkeys(_results(source, statement)))
        elif isinstance(statement, (ast.Assign, ast.AugAssign)):
            for name, reads in _held(source, statement):
                pending.update(dict.fromkeys(reads if name not in names else []))
                names.add(name)


def _held(source: SourceFile, statement: ast.Assign | ast.AugAssign) -> Iterator[tuple[str, Sequence[ast.expr]]]:
    """The names and attributes of self that a statement sets, and their reads."""
    for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
        attribute, owner = self_attribute(target), source.owner(statement)
        if isinstance(target, ast.Name):
            yield target.id, readers(source, statement, target.id)
        elif attribute is not None and owner is not None:
            yield attribute, owner.reads.get(attribute, [])


def _results(source: SourceFile, statement: ast.Return) -> list[ast.Call]:
    """The calls in this file of the function that returns a value, other than `forward`."""
    function = source.function(statement)
    if function is None or function.name == "forward":
        return []
    if function.owner is None:
        return [call for call in source.calls.get(function.name, []) if isinstance(call.func, ast.Name)]
    family = (*function.owner.mro, *function.owner.subclasses)
    return [call for cls in family for call in cls.own_calls.get(function.name, [])]


def _end(source: SourceFile, node: ast.AST, ends: Callable[[ast.AST, ast.AST], bool]) -> ast.AST | None:
    """The first node around `node` for which `ends(child, parent)`, or its statement; None if that is far off."""
    child = node
    for parent in islice(source.parents(node), _FARTHEST):
        if ends(child, parent) or isinstance(parent, ast.stmt):
            return parent
        child = parent
    return None


def _applies(source: SourceFile, mask: ast.AST, parent: ast.AST, seen: set[str], is_place: bool) -> bool:
    """Whether `parent` multiplies values with `mask`, or fills them with zero by it."""
    if isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Store) and parent.slice is mask:
        statement = source.statement(parent)  # x[mask] = 0, x[:, places] = 0
        return isinstance(statement, ast.Assign) and literal(statement.value) == 0
    if is_place:
        return source.is_call_of(parent, "index_fill", "index_fill_")
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mult):
        return _has_values(parent.right if mask is parent.left else parent.left, seen)
    return isinstance(parent, ast.Call) and _multiplies(source, parent, mask, seen)


def _multiplies(source: SourceFile, call: ast.Call, mask: ast.AST, seen: set[str]) -> bool:
    """Whether `call` is `torch.mul(x, mask)`, `x.masked_fill(mask, 0)` or `torch.where(mask, x, 0)`."""
    match source.last_name(call), call.args:
        case "mul" | "mul_" | "multiply", arguments:
            receiver = [call.func.value] if isinstance(call.func, ast.Attribute) and call.func is not mask else []
            factors = [*arguments, *receiver]
            return any(_has_values(factor, seen) for factor in factors if factor is not mask)
        case "masked_fill" | "masked_fill_", [condition, value]:
            return mask is condition and _is_zero(source, value)
        case "where", [condition, value, other]:
            return mask is condition and (_is_zero(source, value) or _is_zero(source, other))
        case _:
            return False


def _is_zero(source: SourceFile, expression: ast.expr) -> bool:
    is_product = isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.Mult)
    factors = (expression.left, expression.right) if isinstance(expression, ast.BinOp) and is_product else ()
    return any(literal(part) == 0 for part in (expression, *factors)) or source.is_call_of(
        expression, "zeros_like", "zeros", "new_zeros"
    )


def _has_values(expression: ast.expr, seen: set[str]) -> bool:
    """Whether `expression` has a name other than those of the mask and of rates."""
    return any(
        node.id not in seen and node.id != "self" and not _SCALE.has(node.id)
        if isinstance(node, ast.Name)
        else isinstance(node, ast.Attribute) and node.attr in ("weight", "data")
        for node in islice(ast.walk(expression), _FARTHEST)
    )


def _skips(source: SourceFile, branch: ast.AST | None, test: ast.expr) -> bool:
    """Whether `test` decides in `branch` if code is left out: a layer, the rest of a loop or method, a value."""
    if isinstance(branch, ast.IfExp):
        return any(_is_zero(source, value) for value in (branch.body, branch.orelse))
    if isinstance(branch, ast.comprehension):  # [layer for layer in self.layers if random.random() > p]
        return test in branch.ifs and self_attribute(branch.iter) is not None
    if not isinstance(branch, ast.If) or not branch.test.lineno <= test.lineno <= (branch.test.end_lineno or 0):
        return False
    return any(_leaves_out(source, statement) for statement in (*branch.body, *branch.orelse)) or (
        not branch.orelse and all(_runs_layer(source, statement) for statement in branch.body)
    )


def _leaves_out(source: SourceFile, statement: ast.stmt) -> bool:
    match statement:
        case ast.Continue() | ast.Return(value=ast.Name()):
            return True
        case ast.Assign(targets=[ast.Name()], value=value) | ast.Return(value=ast.expr() as value):
            return _is_zero(source, value)
        case _:
            return False


def _runs_layer(source: SourceFile, statement: ast.stmt) -> bool:
    """Whether a statement is `x = layer(x)`, or `x = x + self.branch(x)`."""
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AugAssign(target=ast.Name(id=name), value=value)
        ):
            calls = [node for node in islice(ast.walk(value), _FARTHEST) if isinstance(node, ast.Call)]
            return any(
                source.called(call) is None
                and any(isinstance(argument, ast.Name) and argument.id == name for argument in call.args)
                for call in calls
            )
        case _:
            return False
