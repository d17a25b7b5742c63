"""Conditions: under which tests an expression of a function is evaluated, and what they give for a module at hand.

Nothing is run: what cannot be told from attributes, constants and arguments is unknown.
"""

from __future__ import annotations

import ast
import builtins
import operator
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any, cast

from torch import Tensor, nn

from dropkit.mc.training_flag.detection import parsed
from dropkit.mc.training_flag.liveness import live_statements

_HOLDERS: Any = (nn.ModuleList, nn.ModuleDict, nn.Sequential, list, tuple, dict)


class _Unknown:
    """What only a run could tell."""


UNKNOWN = _Unknown()

_LEAVES = (ast.Return, ast.Continue, ast.Break, ast.Raise)
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not, ast.Add: operator.add,
    ast.Sub: operator.sub, ast.Mult: operator.mul,
}  # fmt: skip


# An expression, and whether it is true where something is evaluated.
Guard = tuple[ast.expr, bool]


@dataclass(frozen=True, slots=True)
class Call:
    """A call in the source of a function.

    Attributes:
        guards: what it stands under.
        uses: the same for each place where its result is read, if a statement assigns that to a name, once.
    """

    node: ast.Call
    guards: tuple[Guard, ...]
    uses: tuple[tuple[Guard, ...], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """What the source of a function says.

    Attributes:
        parameters: by position.
        named: all that have a name and are not written in the function; those that are can be anything.
        assigned: the expression of each other name that is assigned once.
        iterated: what each name of a loop goes through.
        imported: for each name that is imported inside, the module, and the name there.
        returned: the expression of a function that is one `return`.
        calls: those that may change what the function returns.
    """

    parameters: tuple[str, ...]
    named: frozenset[str]
    assigned: Mapping[str, ast.expr]
    iterated: Mapping[str, ast.expr]
    imported: Mapping[str, tuple[str, str | None]]
    returned: ast.expr | None
    calls: tuple[Call, ...]


@lru_cache(maxsize=4096)
def source(function: FunctionType, read: frozenset[str]) -> Source | None:
    """Read a function; None where it has no source.

    Args:
        read: attributes of the module that other functions read, each with a dot before it.
    """
    tree = parsed(function)
    if tree is None:
        return None
    nodes = [*ast.walk(tree)]
    parents = {child: node for node in nodes for child in ast.iter_child_nodes(node)}
    given = tree.args
    parameters = tuple(one.arg for one in (*given.posonlyargs, *given.args))
    stores = Counter(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    loads: dict[str, list[ast.Name]] = {}
    assigned: dict[str, ast.expr] = {}
    iterated: dict[str, ast.expr] = {}
    imported: dict[str, tuple[str, str | None]] = {}
    names: dict[ast.AST, str] = {}
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                loads.setdefault(name, []).append(node)
            case ast.Assign(targets=[ast.Name(id=name)], value=expression) if stores[name] == 1:
                assigned[name], names[node] = expression, name
            case ast.For(target=ast.Name(id=name), iter=iterable):
                iterated[name] = iterable
            case ast.ImportFrom(module=str() as module, names=aliases, level=0):
                imported |= {one.asname or one.name: (module, one.name) for one in aliases}
            case ast.Import(names=aliases):
                imported |= {one.asname or one.name: (one.name, None) for one in aliases}
            case _:
                pass

    live = live_statements(tree, read)

    def call(node: ast.Call, statement: ast.AST) -> Call:
        # Of what a function does that is defined inside, wherever that is named.
        inner = next(
            (one for one in _above(node, parents) if isinstance(one, ast.FunctionDef) and one is not tree), None
        )
        name = names.get(statement) if inner is None else inner.name
        uses = loads.get(name, []) if name is not None else []
        return Call(node, tuple(_guards(node, parents)), tuple(tuple(_guards(one, parents)) for one in uses))

    def statement_of(node: ast.AST) -> ast.AST:
        return node if isinstance(node, ast.stmt) else statement_of(parents[node])

    calls = [(node, statement_of(node)) for node in nodes if isinstance(node, ast.Call)]
    named = {*parameters, *(one.arg for one in given.kwonlyargs)}
    return Source(
        parameters,
        frozenset(name for name in named if not stores[name]),
        {name: one for name, one in assigned.items() if name not in named},
        iterated,
        imported,
        _returned(tree),
        tuple(call(*one) for one in calls if one[1] in live),
    )


def _above(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> Iterator[ast.AST]:
    while node in parents:
        node = parents[node]
        yield node


def _returned(tree: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.expr | None:
    last = tree.body[-1]
    documented = len(tree.body) == 1 + (ast.get_docstring(tree) is not None)
    return last.value if documented and isinstance(last, ast.Return) else None


@dataclass(frozen=True, slots=True)
class Frame:
    """A call of a function, as far as it is known.

    Attributes:
        names: its arguments: values, or expressions of the caller's.
    """

    function: FunctionType
    source: Source
    names: Mapping[str, Any]

    @staticmethod
    def of(function: FunctionType, source: Source, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Frame:
        defaults = function.__defaults__ or ()
        names: dict[str, Any] = dict(function.__kwdefaults__ or {})
        names |= dict(zip(source.parameters[len(source.parameters) - len(defaults) :], defaults, strict=True))
        names |= kwargs
        names |= dict(zip(source.parameters, args, strict=False))
        return Frame(function, source, {name: names.get(name, UNKNOWN) for name in source.named})

    def under(self, guards: Sequence[Guard]) -> list[Condition]:
        return [Condition(node, holds, self) for node, holds in guards]


@dataclass(frozen=True, slots=True)
class Bound:
    """An argument: an expression of the caller's."""

    node: ast.expr
    frame: Frame


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition: an expression that must be true, or must not."""

    node: ast.expr
    holds: bool
    frame: Frame

    def met(self, training: bool) -> bool | None:
        """Whether it holds in a mode; None if that is unknown."""
        truth = _truth(value(self.node, self.frame, training))
        return None if truth is None else truth is self.holds


def never_in_evaluation(tests: Sequence[Condition]) -> bool:
    """Whether what stands under these tests is certainly not evaluated in evaluation mode, and may be in training."""
    return any(one.met(False) is False for one in tests) and all(one.met(True) is not False for one in tests)


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
                yield from ((one, isinstance(op, ast.And)) for one in values if one is not node)
            case ast.match_case(pattern=ast.MatchSingleton(value=constant)):
                subject = cast("ast.Match", parents[parent]).subject
                yield ast.Compare(subject, [ast.Is()], [ast.Constant(constant)]), True
            case ast.BinOp(op=ast.Mult(), left=left, right=right):
                yield (left if node is right else right), True
            case _:
                pass
        for block in (getattr(parent, "body", None), getattr(parent, "orelse", None)):
            if isinstance(block, list) and node in block:
                yield from _left_before(cast("list[ast.stmt]", block), cast("ast.stmt", node))
        node = parent


def _left_before(block: list[ast.stmt], statement: ast.stmt) -> Iterator[Guard]:
    """The tests of the branches that would have left the block before it comes to a statement."""
    for one in block[: block.index(statement)]:
        if isinstance(one, ast.If):
            if isinstance(one.body[-1], _LEAVES):
                yield one.test, False
            if one.orelse and isinstance(one.orelse[-1], _LEAVES):
                yield one.test, True


def value(node: ast.AST, frame: Frame, training: bool) -> Any:
    """What an expression gives where the flags of all modules are `training`; UNKNOWN where only a run could tell."""
    try:
        found = _value(node, frame, training)
    except Exception:  # attributes and operators of any objects
        return UNKNOWN
    return UNKNOWN if isinstance(found, Tensor) else found


def _value(node: ast.AST, frame: Frame, training: bool) -> Any:
    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.Name(id=name):
            return _named(name, frame, training)
        case ast.Attribute(value=owner, attr=name):
            return _attribute(value(owner, frame, training), name, training)
        case ast.Subscript(value=owner, slice=ast.Constant(value=key)):
            held: Any = value(owner, frame, training)
            return held[key] if isinstance(held, _HOLDERS) else UNKNOWN
        case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str() as name), *_]):
            return _attribute(value(owner, frame, training), name, training)
        case ast.Call(func=ast.Name(id="bool" | "float" | "int"), args=[argument]):
            return value(argument, frame, training)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = _truth(value(operand, frame, training))
            return UNKNOWN if truth is None else not truth
        case ast.BoolOp(op=op, values=values):
            return _joined([value(one, frame, training) for one in values], isinstance(op, ast.And))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            truth = _truth(value(test, frame, training))
            return UNKNOWN if truth is None else value(body if truth else orelse, frame, training)
        case ast.Compare(left=left, ops=[op], comparators=[right]) | ast.BinOp(left=left, op=op, right=right):
            sides = value(left, frame, training), value(right, frame, training)
            known = type(op) in _OPERATORS and not any(one is UNKNOWN for one in sides)
            return _OPERATORS[type(op)](*sides) if known else UNKNOWN
        case _:
            return UNKNOWN


def _named(name: str, frame: Frame, training: bool) -> Any:
    if name in frame.names:
        found = frame.names[name]
        return value(found.node, found.frame, training) if isinstance(found, Bound) else found
    if name in frame.source.assigned:
        return value(frame.source.assigned[name], frame, training)
    if name in frame.source.imported:
        module, attribute = frame.source.imported[name]
        found = sys.modules.get(module, UNKNOWN)
        return found if attribute is None else getattr(found, attribute, UNKNOWN)
    function: Any = frame.function
    if name in function.__code__.co_varnames:
        return UNKNOWN
    if name in function.__code__.co_freevars and function.__closure__ is not None:
        return function.__closure__[function.__code__.co_freevars.index(name)].cell_contents
    return function.__globals__.get(name, getattr(builtins, name, UNKNOWN))


def _attribute(owner: Any, name: str, training: bool) -> Any:
    if owner is UNKNOWN:
        return UNKNOWN
    if name == "training" and isinstance(owner, nn.Module):
        return training
    member = None if isinstance(owner, ModuleType) else getattr(cast("Any", type(owner)), name, None)
    if isinstance(member, property):
        getter: Any = member.fget
        read = source(getter, frozenset[str]()) if isinstance(getter, FunctionType) else None
        if read is None or read.returned is None:
            return UNKNOWN
        return value(read.returned, Frame.of(getter, read, [owner], {}), training)
    return getattr(owner, name, UNKNOWN)


def _joined(values: list[Any], all_of: bool) -> Any:
    """What `and` or `or` makes of them, as a truth."""
    truths = [_truth(one) for one in values]
    if (not all_of) in truths:
        return not all_of
    return UNKNOWN if None in truths else all_of


def _truth(found: Any) -> bool | None:
    plain = isinstance(found, (bool, int, float, str, list, tuple, dict, nn.Module, type(None)))
    return bool(cast("Any", found)) if plain else None
