"""Resolve what a call applies: a function, a method, or a layer and the calls that construct it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from dropkit.lint.semantic.data_flow import MOST, origins
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.expressions import argument, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import BEFORE, alternatives, end_layer
from dropkit.lint.semantic.syntax_tree import cached_per_file


@dataclass(frozen=True, slots=True)
class Operation:
    """One application: of a function (`torch.relu`), a method (`.relu`) or a layer (`torch.nn.ReLU`)."""

    name: str
    call: ast.Call
    input: ast.expr | None
    # The calls that construct the layer: several if a condition chooses between layers of one kind.
    layers: tuple[ast.Call, ...] = ()

    @property
    def torch_name(self) -> str:
        """`relu` for a function or method of torch, `ReLU` for a layer; empty for anything that is not torch's."""
        prefix, _, last = self.name.rpartition(".")
        return last if prefix in ("", "torch", "torch.special", "torch.nn", "torch.nn.functional") else ""


def operation(source: SourceFile, expression: ast.AST | None) -> Operation | None:
    """The operation that `expression` applies; None if it is no call, or a call of something unknown.

    A Sequential counts as its last layer.
    """
    if not isinstance(expression, ast.Call):
        return None
    name = source.dotted(expression.func)
    if name is not None:
        return Operation(name, expression, input_of(expression))
    constructed = [end_layer(source, layer, BEFORE) for layer in constructors(source, expression.func)]
    if constructed:
        names = {source.called(layer) for layer in constructed}
        name = names.pop() if len(names) == 1 else None
        known = tuple(layer for layer in constructed if layer is not None)
        return Operation(name, expression, input_of(expression), known) if name is not None else None
    if isinstance(expression.func, ast.Attribute) and self_attribute(expression.func) is None:
        return Operation(f".{expression.func.attr}", expression, expression.func.value)
    return None


def operations(source: SourceFile, value: ast.expr | None) -> list[Operation | None]:
    """What may have computed `value`; None for anything unknown."""
    return [operation(source, origin) for origin in origins(source, value)] or [None]


def made(source: SourceFile, layer: ast.Call | None) -> Operation | None:
    """What a layer applies where it stands in a row; None if there is none."""
    return Operation(source.called(layer) or "", layer, None, (layer,)) if layer is not None else None


def folded(name: str) -> str:
    """A name in lower case without underscores: the same for `leaky_relu` and `LeakyReLU`."""
    return name.replace("_", "").lower()


def input_of(call: ast.Call) -> ast.expr | None:
    """The first argument of a call, which is the tensor for functions and layers."""
    return call.args[0] if call.args else argument(call, None, "input")


def constructors(source: SourceFile, callee: ast.expr) -> list[ast.Call]:
    """The calls that construct `self.attribute`, a local name, or the result of a call; empty if one is unknown."""
    if isinstance(callee, ast.Call):
        return _constructor_calls(source, [callee])
    if isinstance(callee, ast.Name):
        return _constructor_calls(source, [source.value(callee)])
    attribute = self_attribute(callee)
    owner = source.owner(callee) if attribute is not None else None
    return _layers_of_attribute(source, owner, attribute) if attribute is not None and owner is not None else []


@cached_per_file
def _layers_of_attribute(source: SourceFile, owner: ClassDefinition, attribute: str) -> list[ast.Call]:
    return _constructor_calls(source, _values(owner, attribute), owner, attribute)


def _values(owner: ClassDefinition | None, attribute: str) -> list[ast.expr | None]:
    writes = owner.all_writes(attribute) if owner is not None else []
    return [None if write.derived else write.value for write in writes] or [None]


def _constructor_calls(
    source: SourceFile, values: list[ast.expr | None], owner: ClassDefinition | None = None, attribute: str = ""
) -> list[ast.Call]:
    """The calls that construct the layers of `values`, which are those of `self.attribute` of the `owner`, if any.

    Local names and other attributes of self are followed.
    """
    calls: list[ast.Call] = []
    followed = {(owner, attribute)}
    pending = list(values)
    for value in pending:
        for alternative in alternatives(source, value):
            other = self_attribute(alternative)
            if isinstance(alternative, ast.Call) and source.called(alternative) is not None:
                calls.append(alternative)
            elif isinstance(alternative, ast.Name):
                pending += origins(source, alternative)
            elif alternative is not None and other is not None:
                kept = source.owner(alternative), other
                pending += _values(*kept) if kept not in followed else ()
                followed.add(kept)
            else:
                return []
            if len(calls) > MOST or len(pending) > MOST:
                return []
    return calls
