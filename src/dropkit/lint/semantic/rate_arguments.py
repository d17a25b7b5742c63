"""The rates that constructors take as arguments, and the layers that are made without one beside them."""

from __future__ import annotations

import ast
import re

from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.dropout_names import is_rate_name
from dropkit.lint.semantic.expressions import unpacks
from dropkit.lint.semantic.identifiers import words_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.syntax_tree import cached_per_file, grouped

# A rate for all dropout of a class; `attention_dropout` is for some of it.
_GENERAL = pattern(r"(?:drop|dropout|drop out)(?: (?:p|rate|ratio|prob|probability))?|p drop(?:out)?")


def rate_arguments(source: SourceFile, owner: ClassDefinition) -> list[ast.arg]:
    """The arguments of the constructor that are numbers and, by their names, dropout rates."""
    constructor = owner.methods.get("__init__")
    if constructor is None:
        return []
    return rates_among(source, constructor.parameters[1:])


def rates_among(source: SourceFile, parameters: list[ast.arg]) -> list[ast.arg]:
    """The parameters that are numbers and, by their names, dropout rates."""
    return [parameter for parameter in parameters if _is_rate(source, parameter)]


@cached_per_file
def argument_for_defaults(source: SourceFile, owner: ClassDefinition) -> ast.arg | None:
    """The argument that the layers without a rate of a class should have: its only one, for all dropout."""
    rates = rate_arguments(source, owner) if default_layers(source, owner) else []
    return rates[0] if len(rates) == 1 and _GENERAL.fullmatch(words_of(rates[0].arg)) else None


def default_layers(source: SourceFile, owner: ClassDefinition) -> list[DropoutCall]:
    """The layers that the constructor makes without a rate: `nn.Dropout()`."""
    constructor = owner.methods.get("__init__")
    return _default_layers(source).get(constructor, []) if constructor is not None else []


@cached_per_file
def _default_layers(source: SourceFile) -> dict[FunctionDefinition | None, list[DropoutCall]]:
    """The layers of a file without a rate, by the function that makes them."""
    return grouped(
        (source.function(layer.call), layer)
        for layer in dropout_calls(source, DropoutForm.LAYER)
        if layer.kind is not None and layer.p is None and not unpacks(layer.call)
    )


def _is_rate(source: SourceFile, parameter: ast.arg) -> bool:
    if not is_rate_name(parameter.arg):
        return False
    annotation = source.text.of(parameter.annotation) if parameter.annotation is not None else ""
    value = source.default(parameter)
    is_number = value is None or (isinstance(value, ast.Constant) and not isinstance(value.value, (bool, str)))
    return is_number and not re.search("bool|str|Module|Callable|Type|Config", annotation)
