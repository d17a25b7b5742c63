"""Import aliases change nothing: every program has the same findings under names without a meaning."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dropkit.diagnostics import Edit
from dropkit.lint.engine.check_file import check, read
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

EXAMPLES = {f"{rule.code}-{index}": example.bad for rule in RULES for index, example in enumerate(rule.examples)}


def programs_of_tests() -> list[str]:
    """The literal strings of the other test files here that are programs for torch."""
    programs: dict[str, None] = {}
    for file in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
                programs[node.value] = None
    return [program for program in programs if parses(program) and "torch" in program]


def parses(program: str) -> bool:
    try:
        ast.parse(program)
    except SyntaxError:
        return False
    return True


def codes(source: str) -> list[tuple[int, str]]:
    return [(finding.span.line, finding.code) for finding in check(read("example.py", Text(source.encode())), RULES)]


def imported_as(name: str, alias: str) -> str:
    """`from torch.nn import Dropout as zq1`"""
    package, _, last = name.rpartition(".")
    return f"from {package} import {last} as {alias}"


def assigned_to(name: str, alias: str) -> str:
    """`zq1 = torch.nn.Dropout`, with the package under a name that says nothing either."""
    package, _, last = name.rpartition(".")
    parent, _, module = package.rpartition(".")
    head = f"from {parent} import {module} as {alias}_" if parent else f"import {package} as {alias}_"
    return f"{head}; {alias} = {alias}_.{last}"


def assigned_twice(name: str, alias: str) -> str:
    """`zq1 = zq1_`, where `zq1_` is imported."""
    return f"{imported_as(name, alias + '_')}; {alias} = {alias}_"


def renamed(program: str, define: Callable[[str, str], str]) -> str:
    """`program` with every name of torch's under an alias that is defined behind the first import, line for line."""
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
    # Behind the last import of a run without gaps, where all that is aliased can be had.
    end = source.text.end(first)
    definitions = "".join(f"; {define(name, alias)}" for name, alias in aliases.items())
    return source.text.edited([*edits, Edit(end, end, definitions)]).utf8.decode()


def torch_name(source: SourceFile, node: ast.AST) -> str | None:
    """The dotted name of a whole expression like `nn.Dropout` or an imported `Dropout` that stands for torch's."""
    if not isinstance(node, (ast.Name, ast.Attribute)) or not isinstance(node.ctx, ast.Load):
        return None
    above = source.parent(node)
    if above is None or (isinstance(above, ast.Attribute) and source.dotted(above) is not None):
        return None  # a part of a longer name, or of an annotation
    name = source.dotted(node)
    root = node
    while isinstance(root, ast.Attribute):
        root = root.value
    if name is None or not re.match(r"(torch|torchvision)\.", name) or not isinstance(root, ast.Name):
        return None
    is_module = name in ("torch.nn", "torch.nn.functional", "torch.utils.checkpoint", "torch.optim", "torch.backends")
    imported_here = all(binding.imported for binding in source.bindings(root)) and source.bindings(root)
    return name if imported_here and not is_module else None


@pytest.mark.parametrize("define", [imported_as, assigned_to, assigned_twice])
@pytest.mark.parametrize("program", EXAMPLES.values(), ids=EXAMPLES)
def test_aliases_change_no_finding_of_an_example(program, define):
    """Every rule finds its own example, on the same lines, whatever it calls what it imports."""
    changed = renamed(program, define)

    assert "zq0" in changed
    assert not re.search(r"\b(nn|F)\.(?!_)\w+\(", changed)
    assert codes(changed) == codes(program)


@pytest.mark.parametrize("define", [imported_as, assigned_to, assigned_twice])
def test_aliases_change_no_finding_of_any_test_program(define):
    """Nor of the programs that the other tests of the rules are made of."""
    programs = programs_of_tests()

    changed = {program: codes(renamed(program, define)) for program in programs}

    assert len(programs) > 20
    assert {program: found for program, found in changed.items() if found != codes(program)} == {}
