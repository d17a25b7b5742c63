"""What the expressions of a function evaluate to for the module at hand, in training or in evaluation mode.

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

from dropkit.mc.training_flag.function_source import FunctionSource, function_source

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
    """A call of a function in a mode, with the arguments that are known.

    Attributes:
        arguments: their values.
        training: the flag of all modules.
    """

    function: FunctionType
    source: FunctionSource
    arguments: Mapping[str, Any]
    training: bool

    @staticmethod
    def of(function: FunctionType, args: Sequence[Any], kwargs: Mapping[str, Any], training: bool) -> Frame | None:
        """Return the frame of a call; None if the function has no source."""
        source = function_source(function)
        if source is None:
            return None
        defaults = function.__defaults__ or ()
        names: dict[str, Any] = dict(function.__kwdefaults__ or {})
        names |= dict(zip(source.parameters[len(source.parameters) - len(defaults) :], defaults, strict=True))
        names |= kwargs
        names |= dict(zip(source.parameters, args, strict=False))
        return Frame(function, source, {name: names.get(name, UNKNOWN) for name in source.unchanged}, training)

    def value(self, node: ast.AST) -> Any:
        """The value of an expression, or UNKNOWN."""
        try:
            result = _value(node, self)
        except Exception:  # attributes and operators of arbitrary objects may raise anything
            return UNKNOWN
        return UNKNOWN if isinstance(result, Tensor) else result

    def truth(self, node: ast.AST) -> bool | None:
        """The truth of an expression whose value is plain; None for others, since computing it could run code."""
        known = self.value(node)
        is_plain = isinstance(known, (bool, int, float, str, list, tuple, dict, nn.Module, type(None)))
        return bool(cast("Any", known)) if is_plain else None


def _value(node: ast.AST, frame: Frame) -> Any:
    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.Name(id=name):
            return _name(name, frame)
        case ast.Attribute(value=owner, attr=name):
            return _attribute(frame.value(owner), name, frame.training)
        case ast.Subscript(value=owner, slice=ast.Constant(value=key)):
            container: Any = frame.value(owner)
            return container[key] if isinstance(container, _CONTAINERS) else UNKNOWN
        case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str() as name), *_]):
            return _attribute(frame.value(owner), name, frame.training)
        case ast.Call(func=ast.Name(id="bool" | "float" | "int"), args=[argument]):
            return frame.value(argument)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            truth = frame.truth(operand)
            return UNKNOWN if truth is None else not truth
        case ast.BoolOp(op=op, values=values):
            truths, is_and = [frame.truth(operand) for operand in values], isinstance(op, ast.And)
            return (not is_and) if (not is_and) in truths else UNKNOWN if None in truths else is_and
        case ast.IfExp(test=test, body=body, orelse=orelse):
            truth = frame.truth(test)
            return UNKNOWN if truth is None else frame.value(body if truth else orelse)
        case ast.Compare(left=left, ops=[op], comparators=[right]) | ast.BinOp(left=left, op=op, right=right):
            operands = frame.value(left), frame.value(right)
            is_known = type(op) in _OPERATORS and not any(operand is UNKNOWN for operand in operands)
            return _OPERATORS[type(op)](*operands) if is_known else UNKNOWN
        case _:
            return UNKNOWN


def _name(name: str, frame: Frame) -> Any:
    if name in frame.arguments:
        return frame.arguments[name]
    if name in frame.source.assigned:
        return frame.value(frame.source.assigned[name])
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
        frame = Frame.of(getter, [owner], {}, training) if isinstance(getter, FunctionType) else None
        returned = None if frame is None else frame.source.returned
        return UNKNOWN if frame is None or returned is None else frame.value(returned)
    return getattr(owner, name, UNKNOWN)
