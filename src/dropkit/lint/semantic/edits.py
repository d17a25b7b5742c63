"""Make edits of source code that keep its formatting: comments, brackets and trailing commas."""

from __future__ import annotations

import ast
from collections.abc import Container, Mapping

from dropkit.diagnostics import Edit, Fix
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.dropout_calls import DropoutCall
from dropkit.lint.semantic.expressions import given, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.pattern import pattern
from dropkit.lint.semantic.source_text import Text
from dropkit.lint.semantic.syntax_tree import cached_per_file

_COMMENT = pattern(rb"#[^\r\n]*")
_LINE_END = pattern(rb"\r\n|\r|\n")


def fix(title: str, *edits: Edit | None, safe: bool = False, changes_training: bool = False) -> Fix | None:
    """All of `edits` together; None if there is no safe place for one of them."""
    placed = tuple(edit for edit in edits if edit is not None)
    return Fix(title, placed, safe, changes_training) if len(placed) == len(edits) else None


def pass_training(
    source: SourceFile,
    dropout: DropoutCall,
    title: str = "Pass training=self.training",
    changes_training: bool = False,
    safe: bool = True,
) -> Fix | None:
    """Give a dropout `self.training`, in place of the flag that it has: `safe` if the object surely has a mode."""
    call, name, owner = dropout.call, source.self_name(dropout.call), source.owner(dropout.call)
    if name is None or owner is None:
        return None
    text = f"{name}.training"
    if dropout.training is not None:
        edit = replace(source, dropout.training, text)
    else:
        keyword = dropout.signature.training_name if dropout.signature is not None else "training"
        edit = add_argument(source, call, f"{keyword}={text}")
    return fix(title, edit, safe=safe and owner.has_mode, changes_training=changes_training)


def replace(source: SourceFile, node: ast.AST, text: str) -> Edit:
    """Replace `node` by `text`. Brackets around it stay."""
    return Edit(source.text.start(node), source.text.end(node), text)


def swap_kind(
    source: SourceFile, title: str, dropout: DropoutCall, wrong: Container[ast.AST | None], kinds: Mapping[str, str]
) -> Fix | None:
    """Replace the kind of a dropout: `nn.Dropout2d` becomes `nn.Dropout`, `F.dropout2d` becomes `F.dropout`.

    None if its layer has other uses than the calls that are `wrong`, or if its kind is not written as an attribute.
    """
    attribute, owner = self_attribute(dropout.call.func), source.owner(dropout.call)
    uses = owner.reads.get(attribute or "", []) if owner is not None else []
    if len(uses) > MOST or any(source.parent(use) not in wrong for use in uses):
        return None
    edits = (
        replace(source, callee, f"{source.text.of(callee.value)}.{kinds[callee.attr]}")
        if isinstance(callee, ast.Attribute) and callee.attr in kinds
        else None
        for callee in (layer.call.func for layer in dropout.layers)
    )
    return fix(title, *edits)


def rename_keyword(source: SourceFile, keyword: ast.keyword, name: str) -> Edit:
    """Rename a keyword argument."""
    assert keyword.arg is not None
    start = source.text.start(keyword)
    return Edit(start, start + len(keyword.arg.encode()), name)


def add_argument(source: SourceFile, call: ast.Call, text: str) -> Edit | None:
    """Insert `text` (`training=self.training`) after the last argument of `call`; None if there is no safe place."""
    arguments = given(call)
    if not arguments:
        end = source.text.end(call) - 1
        return Edit(end, end, text) if source.text.utf8[end : end + 1] == b")" else None
    last = max(source.text.end(node) for node in arguments)
    if any(isinstance(node, ast.GeneratorExp) for node in call.args) and len(arguments) == 1:
        return None
    at = _end_with_brackets(source, last, source.text.end(call) - 1)
    return Edit(at, at, f", {text}")


def drop_argument(source: SourceFile, call: ast.Call, node: ast.expr | ast.keyword) -> Edit | None:
    """Remove an argument and its comma; None if a comment is between them."""
    arguments, places = _given(source, call)
    index = places[node]
    utf8 = source.text.utf8
    start, end = source.text.start(node), source.text.end(node)
    if index + 1 < len(arguments):
        between = utf8[end : source.text.start(arguments[index + 1])]
        # A bracket after the comma belongs to the next argument.
        comma, _, _ = between.partition(b"(")
        return None if b"#" in between or b")" in between else Edit(start, end + len(comma), "")
    if index > 0:
        before = _end_with_brackets(source, source.text.end(arguments[index - 1]), start)
        end = _end_with_brackets(source, end, source.text.end(call) - 1)
        return None if b"#" in utf8[before:end] else Edit(before, end, "")
    closing = source.text.end(call) - 1
    rest = utf8[end:closing].strip()
    return Edit(start, closing, "") if rest in (b"", b",") else None


@cached_per_file
def _given(source: SourceFile, call: ast.Call) -> tuple[list[ast.expr | ast.keyword], dict[ast.AST, int]]:
    """The arguments of a call in the order of the text, and the place of each."""
    arguments = sorted([*call.args, *call.keywords], key=source.text.start)
    return arguments, {argument: index for index, argument in enumerate(arguments)}


def delete_statement(source: SourceFile, statement: ast.stmt) -> Edit | None:
    """Remove a statement with its line; None if it shares the line, or is alone in its block."""
    tail = _tail(source.text, statement)
    if len(source.block(statement)) < 2 or _indent(source.text, statement).strip() or _COMMENT.sub(b"", tail).strip():
        return None
    return Edit(source.text.starts[statement.lineno - 1], source.text.end(statement) + len(tail), "")


def insert_after(source: SourceFile, statement: ast.stmt, line: str) -> Edit | None:
    """Insert a line after `statement`, with its indentation; None if something else is on its line."""
    indent, tail = _indent(source.text, statement), _tail(source.text, statement)
    if indent.strip() or _COMMENT.sub(b"", tail).strip():
        return None
    at = source.text.end(statement) + len(tail.rstrip(b"\r\n"))
    return Edit(at, at, f"{_newline(source.text)}{indent}{line}")


def insert_before(source: SourceFile, statement: ast.stmt, line: str) -> Edit | None:
    """Insert a line before `statement`, with its indentation; None if something else is on its line."""
    indent, start = _indent(source.text, statement), source.text.start(statement)
    return None if indent.strip() else Edit(start, start, f"{line}{_newline(source.text)}{indent}")


@cached_per_file
def spell(source: SourceFile, dotted: str) -> str | None:
    """How this file can write a name such as `torch.nn.ModuleList` with its imports; None if it cannot."""
    spellings: list[tuple[int, str]] = []
    for name, bindings in source.names.items():
        imported = bindings[-1].imported
        if source.block(bindings[-1].statement) is not source.tree.body:
            continue  # It may be for type checkers only.
        if imported == dotted:
            spellings.append((0, name))
        elif imported is not None and dotted.startswith(imported + "."):
            rest = dotted[len(imported) :]
            spellings.append((rest.count("."), name + rest))
    return min(spellings)[1] if spellings else None


def _newline(text: Text) -> str:
    """The line ending of the first line of the file."""
    ending = _LINE_END.search(text.utf8)
    return ending.group().decode() if ending else "\n"


def _indent(text: Text, statement: ast.stmt) -> str:
    """What is on the line before a statement."""
    return text.utf8[text.starts[statement.lineno - 1] : text.start(statement)].decode()


def _tail(text: Text, statement: ast.stmt) -> bytes:
    """What is on the line after a statement, with the end of the line."""
    last = statement.end_lineno or statement.lineno
    return text.utf8[text.end(statement) : text.starts[last] if last < len(text.starts) else len(text.utf8)]


def _end_with_brackets(source: SourceFile, start: int, end: int) -> int:
    """The end of an argument with the closing brackets after it, which belong to it."""
    between = _COMMENT.sub(lambda match: b" " * len(match.group()), source.text.utf8[start:end])
    closing = between.rfind(b")")
    return start + closing + 1 if closing >= 0 else start
