"""A dropout layer that is built but never applied.

The model overfits as if the rate were zero, and tuning the rate changes nothing. Apply the layer in `forward`, or
delete it so that nobody relies on it.

Not reported are layers that a subclass, another object or a name made at run time may apply, nor those whose rate is
used by another layer.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from math import inf

from dropkit.catalog import DROPOUT_PATHS
from dropkit.diagnostics import CrossFileCondition, Severity
from dropkit.lint.semantic.attribute_usage import (
    classes_calling_super,
    is_abstract,
    is_admitted,
    is_container,
    is_used,
    may_be_read,
    plans_dropout,
)
from dropkit.lint.semantic.bases import unplain_bases
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, Write
from dropkit.lint.semantic.dropout_calls import has_zero_rate
from dropkit.lint.semantic.edits import delete_statement, fix
from dropkit.lint.semantic.expressions import given, literal, unpacks
from dropkit.lint.semantic.made_layers import is_no_layer, layers_of
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.moved_layers import moves_itself
from dropkit.lint.semantic.syntax_tree import cached_per_file, grouped
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Trace

# Longer expressions, in bytes of source, are not looked up as rates.
_LONGEST = 100


def check_source(source: SourceFile) -> Iterator[Violation]:
    for owner in source.classes:
        for attribute, writes in owner.writes.items():
            made = [write for write in writes if not _sets_no_layer(source, write)] if owner.is_module else []
            is_dropout = bool(made) and not is_used(source, owner, attribute)
            is_dropout = is_dropout and all(_makes_dropout(source, owner, write) for write in made)
            if is_dropout and not _excused(source, owner, attribute, made):
                yield _violation(source, owner, attribute, made[0].statement, is_alone=len(writes) == 1)


def _violation(
    source: SourceFile, owner: ClassDefinition, attribute: str, statement: ast.AST, is_alone: bool
) -> Violation:
    can_delete = is_alone and attribute not in owner.reads
    edit = delete_statement(source, statement) if can_delete and isinstance(statement, ast.stmt) else None
    message = f"self.{attribute} is built but never applied" if len(attribute) < 26 else None
    unless = CrossFileCondition(owner.name, attribute)
    return Violation(statement, message, fix("Delete the layer", edit), unless=unless)


def _sets_no_layer(source: SourceFile, write: Write) -> bool:
    """Whether a write makes no layer: `self.dropout = None`, a bare annotation, a move of the layer that is there."""
    if write.value is None:
        return isinstance(write.statement, ast.AnnAssign)
    if moves_itself(source, write):
        return True
    return not write.derived and is_no_layer(source, write.value)


def _makes_dropout(source: SourceFile, owner: ClassDefinition, write: Write) -> bool:
    """Whether a method keeps a new dropout layer under this name alone."""
    match write.statement:
        case ast.AnnAssign() | ast.Assign(targets=[_]) | ast.Expr():
            return write.function is not None and not write.derived and bool(layers_of(source, owner, write))
        case _:
            return False


def _excused(source: SourceFile, owner: ClassDefinition, attribute: str, writes: list[Write]) -> bool:
    is_derived = bool(unplain_bases(source, owner))
    return (
        is_container(owner)
        or is_abstract(source, owner)
        or any(is_admitted(source, write.statement) for write in writes)
        or may_be_read(source, owner, attribute, as_layer=True)
        or (is_derived and ("forward" not in owner.methods or owner in classes_calling_super(source)))
        or any(_rate_is_applied(source, owner, write) for write in writes)
        or _is_unfinished(source, owner)
        or all(_is_always_zero(source, owner, write) for write in writes)
    )


@cached_per_file
def _is_unfinished(source: SourceFile, owner: ClassDefinition) -> bool:
    """Whether `forward` says that its dropout is still to be written."""
    forward = owner.methods.get("forward")
    text = source.text.of(forward.node) if forward is not None else ""
    if forward is None or "TODO" not in text:
        return False
    comments = [line.partition("#")[2] for line in text.split("\n")]
    body = forward.node.body if isinstance(forward.node, ast.FunctionDef) else []
    returns_input = len(body) == 1 and isinstance(body[0], ast.Return) and isinstance(body[0].value, ast.Name)
    return returns_input or any(map(plans_dropout, comments))


def _is_always_zero(source: SourceFile, owner: ClassDefinition, write: Write) -> bool:
    """Whether the rate is 0, or an argument that is 0 by default, and no call in the file passes it."""
    if all(has_zero_rate(source, layer) for layer in layers_of(source, owner, write)):
        return True
    parameters = write.function.parameters if write.function is not None else []
    names = [parameter.arg for parameter in parameters]
    if owner.name not in source.calls or owner.subclasses:
        return False
    match [given(layer) for layer in layers_of(source, owner, write)]:
        case [[ast.Name(id=name)]] if name in names:
            place = names.index(name)
            keywords, count = _arguments_of_calls(source, owner.name)
            return literal(source.default(parameters[place])) == 0 and name not in keywords and place > count
        case _:
            return False


@cached_per_file
def _arguments_of_calls(source: SourceFile, name: str) -> tuple[set[str], float]:
    """The keywords that calls of a class pass, and the most positional arguments."""
    names: set[str] = set()
    count: float = 0
    for call in source.calls.get(name, []):
        names.update(keyword.arg for keyword in call.keywords if keyword.arg is not None)
        count = inf if unpacks(call) else max(count, len(call.args))
    return names, count


def _rate_is_applied(source: SourceFile, owner: ClassDefinition, write: Write) -> bool:
    """Whether the rate is used elsewhere in the class, or another layer of the same rate is applied."""
    layers = layers_of(source, owner, write)
    words = _words(source, [rate for layer in layers for rate in given(layer)])
    if words is None:
        return True
    if words:
        made_in = frozenset(source.statement(layer) for layer in layers)
        return _are_applied(source, owner, frozenset(words), made_in)
    return any(source.text.of(layer) in _applied(source, owner) for layer in layers)


@cached_per_file
def _are_applied(
    source: SourceFile, owner: ClassDefinition, words: frozenset[str], made_in: frozenset[ast.stmt]
) -> bool:
    """Whether any of the names that a rate is taken from is used elsewhere than to make the layer."""
    for word in words:
        nodes = _uses(source, owner).get(word, [])
        # A name with more reads surely is used.
        others = [node for node in nodes if source.statement(node) not in made_in]
        if len(nodes) > MOST or not all(_has_no_effect(source, owner, node, words) for node in others):
            return True
    return False


@cached_per_file
def _uses(source: SourceFile, owner: ClassDefinition) -> dict[str, list[ast.expr]]:
    """The reads in a class of names, attributes and items, by their source."""
    reads = (node for node in ast.walk(owner.node) if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)))
    words = ((_word(source, node), node) for node in reads if isinstance(node.ctx, ast.Load))
    return grouped((word, node) for word, node in words if word is not None)


@cached_per_file
def _applied(source: SourceFile, owner: ClassDefinition) -> set[str]:
    """The source of the dropout layers in a class that are used."""
    return {
        source.text.of(call)
        for attribute, writes in owner.writes.items()
        if is_used(source, owner, attribute)
        for write in writes
        for call in layers_of(source, owner, write)
    }


def _word(source: SourceFile, node: ast.expr) -> str | None:
    """The source of a name, attribute or item; None if it is too long for a rate."""
    long = source.text.end(node) - source.text.start(node) > _LONGEST
    return None if long else ast.unparse(node)


def _words(source: SourceFile, rates: list[ast.expr]) -> set[str] | None:
    """The names, as source, that rates are taken from: `dropout`, `config.dropout`, `self.rates[2]`.

    None if there are too many to follow.
    """
    words: set[str] = set()
    pending = list(rates)
    for rate in pending:
        for node in ast.walk(rate):
            parent = source.parent(node)
            is_called = isinstance(parent, ast.Call) and parent.func is node
            is_part = node is not rate and (is_called or isinstance(parent, (ast.Attribute, ast.Subscript)))
            if is_part or not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
                continue
            word = _word(source, node)
            if word is None or len(words) > MOST or len(pending) > len(rates) + MOST:
                return None
            words.add(word)
            value = source.value(node) if isinstance(node, ast.Name) else None
            if value is not None and value not in pending:
                pending.append(value)
    return words


def _has_no_effect(source: SourceFile, owner: ClassDefinition, node: ast.AST, words: frozenset[str]) -> bool:
    """Whether a read only tests the rate (`if dropout > 0`), renames it, or sets an attribute that is never read."""
    statement = source.statement(node)
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return (
        bool(source.search_ancestors(node, _is_in_test))
        or (bool(targets) and all(isinstance(target, ast.Name) and target.id in words for target in targets))
        or any(
            not may_be_read(source, owner, attribute, as_layer=False)
            for attribute in _set_by(source, owner).get(statement, [])
        )
    )


def _is_in_test(node: ast.AST, parent: ast.AST) -> bool | None:
    """Whether `node` is a test; False at any other statement."""
    if isinstance(parent, (ast.Assert, ast.Raise)) or (isinstance(parent, (ast.If, ast.IfExp)) and parent.test is node):
        return True
    return False if isinstance(parent, ast.stmt) else None


@cached_per_file
def _set_by(_: SourceFile, owner: ClassDefinition) -> dict[ast.AST, list[str]]:
    """The attributes that each statement sets."""
    return grouped((write.statement, name) for name, writes in owner.writes.items() for write in writes)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites if not trace.stopped and not trace.has_control_flow else ():
        if not site.was_reached and not site.has_rate_used_elsewhere and site.p:
            # Blocks without a branch around them have such a layer and no use for it.
            severity = Severity.INFO if site.kind in DROPOUT_PATHS else None
            yield TraceViolation(site, "dropout layer that this run never reached", severity)


RULE = Rule(
    code="DRP202",
    name="dropout-never-applied",
    message="dropout layer is built but never applied",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="delete the layer that is not applied",
    examples=(
        Example(
            """
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
-        self.dropout = nn.Dropout(0.5)  # DRP202
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        return self.output(torch.relu(self.hidden(x)))


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
