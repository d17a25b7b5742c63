"""Rates of a configuration that a class stores and never reads: `self.dropout = config.dropout`."""

from __future__ import annotations

import ast
import re

from dropkit.lint.semantic.attribute_usage import is_used, plans_dropout
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import ClassDefinition, Write
from dropkit.lint.semantic.dropout_names import is_rate_name
from dropkit.lint.semantic.expressions import last_name, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.receivers import is_settings_name
from dropkit.lint.semantic.syntax_tree import cached_per_file


def unread_settings(source: SourceFile, owner: ClassDefinition) -> list[Write]:
    """The attributes set to a rate of a configuration, `config.dropout`, that the class neither reads nor passes on."""
    writes = [
        write
        for attribute, (write, *more) in owner.writes.items()
        if not more and is_rate_name(attribute) and not write.derived and not is_used(source, owner, attribute)
    ]
    return [
        write
        for write in writes
        if (found := setting(write.value)) is not None
        and write.function is owner.methods.get("__init__")
        and is_rate_name(found[1])
        and not _is_passed_on(source, owner, found[0])
        and not is_commented_out(source, owner, write.attribute)
        and not _is_applied(source, owner, write, found[1])
    ]


def setting(value: ast.expr | None) -> tuple[ast.expr, str] | None:
    """The configuration that a value is read from, and the name there: `config.dropout`, `config["dropout"]`."""
    match value:
        case ast.Attribute(value=holder, attr=name) | ast.Subscript(value=holder, slice=ast.Constant(value=str(name))):
            return holder, name
        case ast.Call(func=ast.Attribute(value=holder, attr="get" | "pop"), args=[ast.Constant(value=str(name)), *_]):
            return holder, name
        case ast.Call(func=ast.Name(id="getattr"), args=[holder, ast.Constant(value=str(name)), *_]):
            return holder, name
        case _:
            return None


def _is_passed_on(source: SourceFile, owner: ClassDefinition, holder: ast.expr) -> bool:
    """Whether a class gives a whole configuration to something that may read the rate, or is no configuration."""
    if not is_settings_name(last_name(holder)):
        return True
    text = ast.unparse(holder).removeprefix("self.")
    for node in ast.walk(owner.node):
        if isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node).removeprefix("self.") == text:
            match source.parent(node):
                case ast.Attribute() | ast.Subscript() | ast.Assign() | ast.Compare():
                    continue
                case ast.Call() as call if last_name(call) in ("__init__", "getattr", "hasattr", "isinstance"):
                    continue
                case _:
                    return True
    return False


def _is_applied(source: SourceFile, owner: ClassDefinition, write: Write, name: str) -> bool:
    """Whether a class names a setting elsewhere, or another class of the file does more than to store it unread."""
    if len(re.findall(rf"\b{name}\b", source.text.of(owner.node))) > 1 + (write.attribute == name):
        return True
    reads = [node for node in source.attributes.get(name, []) if isinstance(node.ctx, ast.Load)]
    return len(reads) > MOST or any(not _is_stored_unread(source, node) for node in reads)


def _is_stored_unread(source: SourceFile, read: ast.Attribute) -> bool:
    match source.parent(read), source.owner(read):
        case ast.Assign(targets=[target]), ClassDefinition() as cls:
            attribute = self_attribute(target)
            return attribute is not None and not is_used(source, cls, attribute)
        case _:
            return False


def is_commented_out(source: SourceFile, owner: ClassDefinition, name: str) -> bool:
    """Whether a comment from the body of the constructor on has code with the name, or plans to use it."""
    return any(
        plans_dropout(comment) or re.search(rf"(?:self\.|[(=,]\s*){name}\b|\b{name}\s*[=(]", comment)
        for comment in _comments(source, owner)
    )


@cached_per_file
def _comments(source: SourceFile, owner: ClassDefinition) -> list[str]:
    """The comments from the body of the constructor on."""
    first = owner.methods["__init__"].body[0]
    body = source.text.of(owner.node).split("\n")[first.lineno - owner.node.lineno :]
    return [comment for line in body if (comment := line.partition("#")[2])]
