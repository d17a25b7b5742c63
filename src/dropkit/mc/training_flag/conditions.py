"""Conditions: what the expressions of a function evaluate to for the module at hand, in training and evaluation mode.

Nothing is run: an expression is unknown unless attributes, constants and arguments determine it.
"""

from __future__ import annotations

import ast
import builtins
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, cast

from torch import Tensor, nn

from dropkit.mc.training_flag.function_source import FunctionSource, Guard, function_source

_CONTAINERS: Any = (nn.ModuleList, nn.ModuleDict, nn.Sequential, list, tuple, dict)


class _Unknown:
    """The type of a value that is known only when the model runs."""


UNKNOWN = _Unknown()

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not, ast.Add: operator.add,
    ast.Sub: operator.sub, ast.Mult: operator.mul,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Frame:
    """A call of a function, with the arguments that are known.

    Attributes:
        arguments: values, or expressions of the caller (`Bound`).
    """

    function: FunctionType
    source: FunctionSource
    arguments: Mapping[str, Any]

    @staticmethod
    def of(function: FunctionType, source: FunctionSource, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Frame:
        defaults = function.__defaults__ or ()
        names: dict[str, Any] = dict(function.__kwdefaults__ or {})
        names |= dict(zip(source.parameters[len(source.parameters) - len(defaults) :], defaults, strict=True))
        names |= kwargs
        names |= dict(zip(source.parameters, args, strict=False))
        return Frame(function, source, {name: names.get(name, UNKNOWN) for name in source.unchanged})

    def conditions(self, guards: Sequence[Guard]) -> list[Condition]:
        return [Condition(node, truth, self) for node, truth in guards]


@dataclass(frozen=True, slots=True)
class Bound:
    """An argument that is an expression of the caller."""

    node: ast.expr
    frame: Frame


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression that must have a certain truth for something to be evaluated."""

    node: ast.expr
    truth: bool
    frame: Frame

    def holds(self, training: bool) -> bool | None:
        """Whether the condition holds in a mode; None if that is unknown."""
        truth = _truth(value(self.node, self.frame, training))
        return None if truth is None else truth is self.truth


def is_training_only(conditions: Sequence[Condition]) -> bool:
    """Whether what needs all these conditions is certainly not evaluated in evaluation mode, and may be in training."""
    return any(condition.holds(False) is False for condition in conditions) and all(
        condition.holds(True) is not False for condition in conditions
    )


def value(node: ast.AST, frame: Frame, training: bool) -> Any:
    """The value of an expression if the flags of all modules are `training`, or UNKNOWN."""
    try:
        result = _value(node, frame, training)
    except Exception:  # attributes and operators of arbitrary objects may raise anything
        return UNKNOWN
    return UNKNOWN if isinstance(result, Tensor) else result


def _value(node: ast.AST, frame: Frame, training: bool) -> Any:
    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.Name(id=name):
            return _name(name, frame, training)
        case ast.Attribute(value=owner, attr=name):
            return _attribute(value(owner, frame, training), name, training)
        case ast.Subscript(value=owner, slice=ast.Constant(value=key)):
            container: Any = value(owner, frame, training)
            return container[key] if isinstance(container, _CONTAINERS) else UNKNOWN
        case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str() as name), *_]):
            return _attribute(value(owner, frame, training), name, training)
        case ast.Call(func=ast.Name(id="bool" | "float" | "int"), args=[argument]):
            return value(argument, frame, training)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = _truth(value(operand, frame, training))
            return UNKNOWN if truth is None else not truth
        case ast.BoolOp(op=op, values=values):
            return _and_or([value(operand, frame, training) for operand in values], isinstance(op, ast.And))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            truth = _truth(value(test, frame, training))
            return UNKNOWN if truth is None else value(body if truth else orelse, frame, training)
        case ast.Compare(left=left, ops=[op], comparators=[right]) | ast.BinOp(left=left, op=op, right=right):
            operands = value(left, frame, training), value(right, frame, training)
            is_known = type(op) in _OPERATORS and not any(operand is UNKNOWN for operand in operands)
            return _OPERATORS[type(op)](*operands) if is_known else UNKNOWN
        case _:
            return UNKNOWN


def _name(name: str, frame: Frame, training: bool) -> Any:
    if name in frame.arguments:
        argument = frame.arguments[name]
        return value(argument.node, argument.frame, training) if isinstance(argument, Bound) else argument
    if name in frame.source.assigned:
        return value(frame.source.assigned[name], frame, training)
    if name in frame.source.imported:
        module_name, attribute = frame.source.imported[name]
        module = sys.modules.get(module_name, UNKNOWN)
        return module if attribute is None else getattr(module, attribute, UNKNOWN)
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
        source = function_source(getter, frozenset[str]()) if isinstance(getter, FunctionType) else None
        if source is None or source.returned is None:
            return UNKNOWN
        return value(source.returned, Frame.of(getter, source, [owner], {}), training)
    return getattr(owner, name, UNKNOWN)


def _and_or(values: list[Any], is_and: bool) -> Any:
    """The truth of `and` or `or` of these values."""
    truths = [_truth(operand) for operand in values]
    if (not is_and) in truths:
        return not is_and
    return UNKNOWN if None in truths else is_and


def _truth(operand: Any) -> bool | None:
    """The truth of a plain value; None for others, since computing it could run code."""
    is_plain = isinstance(operand, (bool, int, float, str, list, tuple, dict, nn.Module, type(None)))
    return bool(cast("Any", operand)) if is_plain else None
