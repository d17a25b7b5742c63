"""The dropout layers that an assignment makes: alone, in a list, by a condition, or added to a list afterwards."""

from __future__ import annotations

import ast

from dropkit.lint.semantic.attribute_usage import adds_to
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, Write
from dropkit.lint.semantic.dropout_names import is_layer_class
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.moved_layers import unmoved
from dropkit.lint.semantic.syntax_tree import cached_per_file

_ROWS = ("ModuleList", "Sequential")


@cached_per_file
def layers_of(source: SourceFile, owner: ClassDefinition, write: Write) -> list[ast.Call]:
    """The dropouts that a write makes, or adds to its list; empty where it makes, or may make, anything else."""
    layers: list[ast.Call] = []
    pending = [write.value, *_added(source, owner, write)]
    while pending:
        added = pending.pop()
        part = unmoved(source, added)
        name = source.last_name(part) if isinstance(part, ast.Call) else ""
        if isinstance(part, ast.IfExp):
            inner = [branch for branch in (part.orelse, part.body) if not is_no_layer(source, branch)]
        elif isinstance(part, ast.BoolOp) and isinstance(part.op, ast.And):
            inner = part.values[-1:]  # p and nn.Dropout(p)
        elif isinstance(part, ast.Call) and name in _ROWS:
            inner = _row(source, part)
            if not inner and added is write.value and (pending or layers):
                continue  # an empty list, to which layers are added
        elif isinstance(part, ast.Call) and is_layer_class(name):
            layers.append(part)
            continue
        else:
            return []
        if not inner:
            return []
        pending += inner
    return layers


def _row(source: SourceFile, row: ast.Call) -> list[ast.expr]:
    """The layers in a ModuleList or Sequential, also of a local list that they were added to before."""
    if len(row.args) != 1:
        return row.args
    match row.args[0]:
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return elements
        case ast.Name() as name:
            reads = source.reads_in(function.node, name.id) if (function := source.function(name)) is not None else []
            layers = [adds_to(source, read) for read in reads if read is not name]
            known = [layer for layer in layers if layer is not None]
            is_empty = isinstance(value := source.value(name), ast.List) and not value.elts
            return known if is_empty and len(known) == len(layers) <= MOST else row.args
        case inner:
            return [getattr(inner, "elt", inner)]


def _added(source: SourceFile, owner: ClassDefinition, write: Write) -> list[ast.expr]:
    """The layers that methods append to `self.attribute`."""
    layers = (adds_to(source, read) for read in owner.reads.get(write.attribute, [])[:MOST])
    return [layer for layer in layers if layer is not None]


def is_no_layer(source: SourceFile, value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return source.last_name(value) == "Identity"
    return isinstance(value, (ast.Constant, ast.Lambda))
