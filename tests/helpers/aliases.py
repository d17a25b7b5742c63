"""Programs with every name of torch's under an alias that says nothing, line for line."""

import ast
import re
from collections.abc import Callable

import pytest

from dropkit.diagnostics import Edit
from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import SourceFile, read
from dropkit.lint.semantic.source_text import Text, Unreadable
from dropkit.rules import RULES


def codes(source: str, path: str = "example.py", always_on: tuple[str, ...] = ()) -> list[tuple[int, str]]:
    """Line and code of each finding."""
    findings = check(read(path, Text(source.encode()), always_on), RULES)
    return [(finding.span.line, finding.code) for finding in findings]


def imported_as(name: str, alias: str) -> str:
    """`from torch.nn import Dropout as zq1`"""
    package, _, last = name.rpartition(".")
    return f"from {package} import {last} as {alias}"


def assigned_to(name: str, alias: str) -> str:
    """`from torch import nn as zq1_; zq1 = zq1_.Dropout`"""
    package, _, last = name.rpartition(".")
    parent, _, module = package.rpartition(".")
    head = f"from {parent} import {module} as {alias}_" if parent else f"import {package} as {alias}_"
    return f"{head}; {alias} = {alias}_.{last}"


def assigned_twice(name: str, alias: str) -> str:
    """`from torch.nn import Dropout as zq1_; zq1 = zq1_`"""
    return f"{imported_as(name, alias + '_')}; {alias} = {alias}_"


DEFINITIONS = (imported_as, assigned_to, assigned_twice)


def under_aliases(program: str, define: Callable[[str, str], str]) -> str:
    """`program` with its names of torch's replaced by aliases, which the line of the first import defines."""
    source = read("example.py", Text(program.encode()))
    aliases: dict[str, str] = {}
    edits: list[Edit] = []
    for node in ast.walk(source.tree):
        name = torch_name(source, node)
        if name is not None:
            alias = aliases.setdefault(name, f"zq{len(aliases)}")
            edits.append(Edit(source.text.start(node), source.text.end(node), alias))
    first = next((node for node in source.tree.body if isinstance(node, (ast.Import, ast.ImportFrom))), None)
    if first is None or not aliases:
        return program
    end = source.text.end(first)
    definitions = "".join(f"; {define(name, alias)}" for name, alias in aliases.items())
    return source.text.edited([*edits, Edit(end, end, definitions)]).utf8.decode()


def torch_name(source: SourceFile, node: ast.AST) -> str | None:
    """The dotted name that a whole expression like `nn.Dropout`, or an imported `Dropout`, stands for in torch."""
    if not isinstance(node, (ast.Name, ast.Attribute)) or not isinstance(node.ctx, ast.Load):
        return None
    name, parent = can_be_imported(source.dotted(node)), source.parent(node)
    # Neither a part of a longer name, nor in an annotation, where nodes have no parent.
    is_whole = not isinstance(parent, ast.Attribute) or can_be_imported(source.dotted(parent)) is None
    root = node
    while isinstance(root, ast.Attribute):
        root = root.value
    if name is None or parent is None or not is_whole or not isinstance(root, ast.Name):
        return None
    # A bare `Module` may be fastai's: rules look at how it is written.
    bindings = source.bindings(root)
    is_imported = bool(bindings) and all(binding.imported for binding in bindings)
    return name if is_imported and not (isinstance(node, ast.Name) and node.id == "Module") else None


def can_be_imported(name: str | None) -> str | None:
    """`name` if it is a function or class in a module of torch's: neither a module, nor a method of a class."""
    if name is None or not re.match(r"torch(vision)?\.", name):
        return None
    package, _, _ = name.rpartition(".")
    modules = ("torch.nn", "torch.nn.functional", "torch.utils", "torch.utils.checkpoint", "torch.optim")
    return None if name in modules or re.search(r"\.[A-Z]", f".{package}") else name


# Longer programs measure the growth of work; they repeat what the shorter ones hold.
LONGEST = 4000


@pytest.fixture(autouse=True)
def aliases_change_no_finding(monkeypatch):
    """Read each program of a test once more, with names of torch's that say nothing. On where it is imported."""
    programs = {}
    init = SourceFile.__init__

    def record(self, path, text, tree, always_on=()):
        if len(text.utf8) <= LONGEST and b"torch" in text.utf8:
            programs[path, text.utf8.decode(), always_on] = None
        init(self, path, text, tree, always_on)

    monkeypatch.setattr(SourceFile, "__init__", record)
    yield
    monkeypatch.undo()
    for path, program, always_on in programs:
        try:
            found = codes(under_aliases(program, imported_as), path, always_on)
        except Unreadable:
            continue  # The first import ends in a backslash, or aliases do not fit behind it.
        assert found == codes(program, path, always_on), program
