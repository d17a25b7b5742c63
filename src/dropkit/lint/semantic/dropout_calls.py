"""Which calls drop, and how: torch's functions and layers, under the name of the layer (`Dropout2d`)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import DROPOUT_MODULES, FUNCTIONALS
from dropkit.lint.semantic.data_flow import layers
from dropkit.lint.semantic.expressions import argument, self_attribute
from dropkit.lint.semantic.model import SourceFile


def calls_that_may_drop(source: SourceFile) -> Iterator[ast.Call]:
    """Calls of what is named after dropout, or is the name of a dropout layer made in this file."""
    names = {name for name in source.calls if "drop" in name.lower()}
    for last in {one.rsplit(".", 1)[1] for one in DROPOUT_MODULES}:
        for made in source.calls.get(last, []):
            match source.statement(made):
                case ast.Assign(targets=[ast.Name(id=name) | ast.Attribute(attr=name)]):
                    names.add(name)
                case _:
                    pass
    for name in sorted(names):
        yield from source.calls.get(name, [])


def dropped(call: ast.AST | None) -> ast.expr | None:
    """The first argument of a call: what it drops from, if it drops."""
    if not isinstance(call, ast.Call):
        return None
    return call.args[0] if call.args else argument(call, None, "input")


def kind(source: SourceFile, call: ast.AST | None) -> str | None:
    """The kind of dropout that `call` applies; None where it does not, is not known to, or has a rate of 0."""
    if not isinstance(call, ast.Call):
        return None
    function = FUNCTIONALS.get(source.called(call) or "")
    if function is not None:
        return None if _is_zero(argument(call, function.p, function.p_name)) else function.module
    return made_kind(source, layers(source, call.func))


def made_kind(source: SourceFile, made: list[ast.Call]) -> str | None:
    """The one kind of dropout that these constructors make."""
    names = {source.called(one) for one in made}
    if len(names) != 1 or not names <= DROPOUT_MODULES or any(_is_zero(argument(one, 0, "p")) for one in made):
        return None
    return (names.pop() or "").rsplit(".", 1)[-1]


def looks_like_dropout(source: SourceFile, call: ast.Call) -> bool:
    """Whether `call` applies a layer that this file does not make, and that is named after dropout."""
    attribute, owner = self_attribute(call.func), source.owner(call)
    known = attribute is None or owner is None or bool(owner.values(attribute)) or owner.method(attribute) is not None
    return not known and attribute in ("dropout", "drop", "drop_layer", "dropout_layer")


def _is_zero(p: ast.expr | None) -> bool:
    return isinstance(p, ast.Constant) and p.value in (0, 0.0)
