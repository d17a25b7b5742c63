"""Dropout rates that functions take, or read from settings, and never read."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.lint.semantic.attribute_usage import is_admitted, is_empty, is_template
from dropkit.lint.semantic.bases import unplain_bases
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import Binding, FunctionDefinition
from dropkit.lint.semantic.dropout_names import is_rate_name
from dropkit.lint.semantic.expressions import UNKNOWN, argument, is_off, last_name, literal, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.rate_arguments import rates_among
from dropkit.lint.semantic.receivers import is_settings_name
from dropkit.lint.semantic.settings_fields import mentions_rates
from dropkit.lint.semantic.stored_settings import setting
from dropkit.lint.semantic.syntax_tree import cached_per_file, grouped

# Functions that may read any local name.
_READ_ALL = ("locals", "vars", "eval", "exec", "globals", "_getframe", "currentframe")
# Decorators under which a function gets the arguments of its calls.
_PLAIN_DECORATORS = frozenset(
    {"staticmethod", "classmethod", "no_grad", "typechecked", "beartype", "jaxtyped", "cache"}
)
# Methods that torch or Lightning calls, with arguments of their own.
_HOOKS = ("forward", "__", "training_", "validation_", "test_", "configure_", "on_")


# Functions that check arguments, or answer for others of the same signature.
_ASKS = Vocabulary(
    r"check\w*|validat\w*|assert\w*|verif\w*|warn\w*|supports?|can|is|has|should|log|print|fake|meta|abstract|dummy"
)


def unread_locals(source: SourceFile) -> Iterator[tuple[ast.stmt, str]]:
    """The statements that set a local name to a rate which nothing reads, and the name."""
    for function in source.functions if mentions_rates(source) else ():
        for name, bindings in function.names.items():
            if not is_rate_name(name) or not all(_sets_rate(source, binding) for binding in bindings):
                continue
            if _is_read(source, function, name) or function in _reading_all(source):
                continue
            statement = bindings[0].statement
            if isinstance(statement, ast.stmt) and not _is_used_otherwise(source, statement, name):
                yield statement, name


def dropped_pops(source: SourceFile) -> Iterator[tuple[ast.stmt, str]]:
    """The statements that take a rate out of keyword arguments, with a rate as its default, and drop it."""
    for call in source.calls.get("pop", []):
        statement = source.parent(call)
        key = setting(call)
        if not isinstance(statement, ast.Expr) or key is None or len(call.args) < 2 or is_off(call.args[1]):
            continue
        is_settings = is_rate_name(key[1]) and is_settings_name(last_name(key[0]))
        if is_settings and not _is_used_otherwise(source, statement, key[1]):
            yield statement, key[1]


@cached_per_file
def unread_parameters(source: SourceFile) -> list[tuple[FunctionDefinition, ast.arg]]:
    """The rates that functions and methods take and never read, where calls may pass them."""
    found: list[tuple[FunctionDefinition, ast.arg]] = []
    for function in source.functions if mentions_rates(source) else ():
        if isinstance(function.node, ast.Lambda) or function.name.startswith(_HOOKS):
            continue
        rates = [rate for rate in rates_among(source, function.parameters) if not _is_read(source, function, rate.arg)]
        if rates and not _ASKS.has(function.name) and not _is_excused(source, function):
            found += [(function, rate) for rate in rates if not is_admitted(source, rate)]
    return found


def is_passed(source: SourceFile, function: FunctionDefinition, rate: ast.arg) -> bool:
    """Whether a call in this file passes a rate that is not literally off."""
    is_class_method = any(last_name(decorator) == "classmethod" for decorator in function.decorators)
    place = function.parameters.index(rate) - (function.self_name is not None or is_class_method)
    calls = _calls_of(source, function)
    given = [argument(call, place, rate.arg) for call in calls[:MOST]]
    return any(value is not None and not is_off(value) for value in given)


def _is_read(source: SourceFile, function: FunctionDefinition, name: str) -> bool:
    """Whether the body of a function reads or deletes a name; the text is searched first, which is faster."""
    text = source.text.utf8[source.text.start(function.body[0]) : source.text.end(function.node)]
    return name.encode() in text and name in _names_read(source, function)


@cached_per_file
def _names_read(_: SourceFile, function: FunctionDefinition) -> set[str]:
    """The names that the body of a function reads or deletes."""
    nodes = (node for statement in function.body for node in ast.walk(statement))
    return {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)}


def _calls_of(source: SourceFile, function: FunctionDefinition) -> list[ast.Call]:
    if function.owner is None:
        return [call for call in source.calls.get(function.name, []) if isinstance(call.func, ast.Name)]
    family = (*function.owner.mro, *function.owner.subclasses)
    own = [call for cls in family for call in cls.own_calls.get(function.name, [])]
    by_class = [call for call in source.calls.get(function.name, []) if _is_called_on(call, function.owner.name)]
    return [*own, *by_class] if function.self_name is None else own


def _is_called_on(call: ast.Call, name: str) -> bool:
    return isinstance(call.func, ast.Attribute) and last_name(call.func.value) == name


def _is_excused(source: SourceFile, function: FunctionDefinition) -> bool:
    """Whether a function may take arguments that it does not need: by its signature, its body or its decorators."""
    node, owner = function.node, function.owner
    variadic = [argument.arg for argument in (node.args.vararg, node.args.kwarg) if argument is not None]
    return (
        any(last_name(decorator) not in _PLAIN_DECORATORS for decorator in function.decorators)
        or is_empty(function.body)
        or is_template(function)
        or not any(isinstance(part, ast.Call) for part in ast.walk(node))
        or any(not _is_read(source, function, name) for name in variadic)
        or function in _reading_all(source)
        or len(_functions_named(source).get(function.name, [])) > 1
        or _is_a_value(source, function)
        or (owner is not None and bool(unplain_bases(source, owner)))
    )


@cached_per_file
def _functions_named(source: SourceFile) -> dict[str, list[FunctionDefinition]]:
    return grouped((function.name, function) for function in source.functions)


@cached_per_file
def _is_a_value(source: SourceFile, function: FunctionDefinition) -> bool:
    """Whether this file uses a function other than to call it: in a table, as an argument."""
    names: list[ast.Name | ast.Attribute] = [*source.mentions.get(function.name, [])]
    names += source.attributes.get(function.name, [])
    return any(not _is_callee(source, node) for node in names[:MOST])


def _is_callee(source: SourceFile, node: ast.AST) -> bool:
    parent = source.parent(node)
    return isinstance(parent, ast.Call) and parent.func is node


def _sets_rate(source: SourceFile, binding: Binding) -> bool:
    """Whether a binding sets a name, and only that, to a number other than zero or to a rate of settings."""
    match binding.statement:
        case ast.Assign(targets=[_]) | ast.AnnAssign() if binding.value is not None and not binding.derived:
            key = setting(binding.value)
            number = literal(binding.value)
            is_number = number is not UNKNOWN and isinstance(number, (int, float)) and bool(number)
            is_setting = key is not None and is_rate_name(key[1]) and is_settings_name(last_name(key[0]))
            return (is_number or is_setting) and not is_admitted(source, binding.statement)
        case _:
            return False


@cached_per_file
def _reading_all(source: SourceFile) -> set[FunctionDefinition | None]:
    """The functions that may read any local name, and those around them."""
    calls = [call for name in _READ_ALL for call in source.calls.get(name, [])]
    functions = {source.function(call) for call in calls}
    return functions | {function.within for function in functions if function is not None}


def _is_used_otherwise(source: SourceFile, statement: ast.stmt, name: str) -> bool:
    """Whether the function, or the class around it, names the rate in another place: `config.dropout` itself."""
    owner, function = source.owner(statement), source.function(statement)
    around = owner.node if owner is not None else function.node if function is not None else source.tree
    inside = set(ast.walk(statement))
    names = {name, *(node.value for node in inside if isinstance(node, ast.Constant) and isinstance(node.value, str))}
    names |= {node.attr for node in inside if isinstance(node, ast.Attribute) and is_rate_name(node.attr)}
    return any(node not in inside for name in names for node in _nodes(source, around).get(name, [])[: MOST + 1])


@cached_per_file
def _nodes(_: SourceFile, around: ast.AST) -> dict[str, list[ast.AST]]:
    """The nodes inside another that name a rate, by its name."""
    return grouped((name, node) for node in ast.walk(around) if (name := _names(node)))


def _names(node: ast.AST) -> str:
    """The rate that a node names: a name that is read, an attribute but of self, a string; empty for others."""
    match node:
        case ast.Name(id=name, ctx=ast.Load()):
            return name
        case ast.Attribute(attr=name, ctx=ast.Load()) if self_attribute(node) is None:
            return name
        case ast.Constant(value=str(name)):
            return name
        case _:
            return ""
