"""The numbers that code gives to dropouts as their rates."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import RATES
from dropkit.lint.semantic.expressions import argument
from dropkit.lint.semantic.model import SourceFile, once

_LAST_NAMES = sorted({name.rsplit(".", 1)[1] for name in RATES})


def rates(source: SourceFile) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Every call that takes a dropout rate, with the expression it is given for one."""
    for name in _LAST_NAMES:
        for call in source.calls.get(name, []):
            where = RATES.get(source.called(call) or "")
            rate = argument(call, *where) if where is not None else None
            if rate is not None:
                yield call, rate


def default(source: SourceFile, parameter: ast.AST) -> ast.expr | None:
    """The default value of a parameter; None where it has none, or is not one."""
    arguments = source.parent(parameter)
    return _defaults(source, arguments).get(parameter) if isinstance(arguments, ast.arguments) else None


@once
def _defaults(_: SourceFile, arguments: ast.arguments) -> dict[ast.AST, ast.expr | None]:
    plain = [*arguments.posonlyargs, *arguments.args]
    given = [*([None] * (len(plain) - len(arguments.defaults))), *arguments.defaults]
    return dict([*zip(plain, given, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)])
