"""The numbers that code gives to dropouts as their rates."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import RATES
from dropkit.facts.expressions import argument
from dropkit.facts.module import Module

_LAST_NAMES = sorted({name.rsplit(".", 1)[1] for name in RATES})


def rates(module: Module) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Every call that takes a dropout rate, with the expression it is given for one."""
    for name in _LAST_NAMES:
        for call in module.calls.get(name, []):
            where = RATES.get(module.called(call) or "")
            rate = argument(call, *where) if where is not None else None
            if rate is not None:
                yield call, rate


def default(module: Module, parameter: ast.AST) -> ast.expr | None:
    """The default value of a parameter; None where it has none, or is not one."""
    arguments = module.parent(parameter)
    if not isinstance(arguments, ast.arguments):
        return None
    plain = [*arguments.posonlyargs, *arguments.args]
    given = [*([None] * (len(plain) - len(arguments.defaults))), *arguments.defaults]
    pairs = [*zip(plain, given, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return next((value for one, value in pairs if one is parameter), None)
