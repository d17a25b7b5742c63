"""Find the calls of functions that drop in the methods of a class, by reading its source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from dropkit.catalog import ATTENTION_BY_LAST_NAME
from dropkit.dropout_functions import dropout_functions
from dropkit.patch.dropkit_functions import is_of_dropkit

# Packages whose functions are not searched: what they drop is known by the functions' names.
_KNOWN = ("torch.", "dropkit.")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function that drops: how the source names it, and its place, "FILE:LINE"."""

    function: str
    place: str


@cache
def dropout_calls(cls: type[nn.Module]) -> tuple[Call, ...]:
    """The calls in the methods of a class, inherited ones too, and in functions of Python that these call by name."""
    calls: dict[Call, None] = {}
    seen: set[Any] = set()
    for base in cls.__mro__:
        if base is nn.Module or base.__module__.startswith("dropkit."):
            continue
        for value in vars(base).values():
            if isinstance(value, FunctionType):
                calls.update(dict.fromkeys(_calls_in(inspect.unwrap(value), seen)))
    return tuple(calls)


def _calls_in(function: Any, seen: set[Any]) -> Iterator[Call]:
    if function in seen or not isinstance(function, FunctionType):
        return
    seen.add(function)
    names = _names_in(function.__code__)
    # Source is slow to read, and most functions name none that drop.
    may_drop = not _telling_names().isdisjoint(names) or any(_is_dropout(function.__globals__.get(n)) for n in names)
    for node in _calls(function) if may_drop else ():
        target, name = _value(node.func, function), ast.unparse(node.func)
        if _is_dropout(target) or (target is None and name.rpartition(".")[2] in ATTENTION_BY_LAST_NAME):
            line = function.__code__.co_firstlineno + node.lineno - 1
            yield Call(name, f"{function.__code__.co_filename}:{line}")
    for name in names:
        value = function.__globals__.get(name)
        members = [_member(value, other) for other in names] if isinstance(value, ModuleType) else [value]
        for member in members:
            if isinstance(member, FunctionType) and not member.__module__.startswith(_KNOWN):
                yield from _calls_in(inspect.unwrap(member), seen)


def _names_in(code: CodeType) -> set[str]:
    """The names that a function's code uses, and those of the functions written in it."""
    inner = (names for constant in code.co_consts if isinstance(constant, CodeType) for names in _names_in(constant))
    return {*code.co_names, *code.co_varnames, *code.co_freevars, *inner}


@lru_cache(maxsize=1)
def _telling_names() -> frozenset[str]:
    return frozenset({*ATTENTION_BY_LAST_NAME, *(function.name for function in dropout_functions().values())})


def _is_dropout(target: Any) -> bool:
    try:
        return target in dropout_functions() and not is_of_dropkit(target)
    except TypeError:  # some callables have no hash
        return False


def _calls(function: FunctionType) -> Iterator[ast.Call]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # of what was not written in a file
        return
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _value(node: ast.expr, function: FunctionType) -> Any:
    """What a name with dots stands for in a function's module; None if that is not known before it runs."""
    if isinstance(node, ast.Attribute):
        return _member(_value(node.value, function), node.attr)
    return function.__globals__.get(node.id) if isinstance(node, ast.Name) else None


def _member(module: Any, name: str) -> Any:
    # What a module would import or warn about on access is left alone.
    return vars(module).get(name) if isinstance(module, ModuleType) else None
