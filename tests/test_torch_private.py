"""The private names of torch: reached in one file alone, and what happens on a torch that lacks them."""

import ast
import importlib.util
import json
import pkgutil
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from dropkit import torch_private

torch_private.inductor()

SOURCES = sorted(path for path in Path(torch_private.__file__).parent.rglob("*.py") if path.stem != "torch_private")
# Of Python itself, and of pygls.
PYTHONS = {"_getframe", "_run_module_as_main", "_fields", "_replace", "_asdict", "_send_data"}


def is_private(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"_(?!_|dropkit)\w+", name) is not None


def private_names(tree: ast.AST) -> set[str]:
    """The private names that a file imports or reads of objects, by whatever syntax."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "dropkit").startswith("dropkit"):
            found.update([*node.module.split("."), *(alias.name for alias in node.names)])
        elif isinstance(node, ast.Import):
            found.update(part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("attr", "attrgetter", "import_module")):
            # getattr and its like; a docstring may name what it will.
            found.update(
                part for one in node.args if isinstance(one, ast.Constant) for part in str(one.value).split(".")
            )
    return {name for name in found if is_private(name)}


def own_names(tree: ast.AST) -> set[str]:
    """The names that a file gives to functions, classes, variables and attributes of its own objects."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
    return found


def test_no_other_file_reaches_a_private_name_of_torch():
    """What another file reads with an underscore is dropkit's own or Python's."""
    trees = {path: ast.parse(path.read_text()) for path in SOURCES}
    own = PYTHONS.union(*map(own_names, trees.values()))

    found = {str(path): names for path, tree in trees.items() if (names := private_names(tree) - own)}

    assert found == {}


@pytest.mark.parametrize(
    "line",
    ["from torch._C import x", "import torch._dynamo", "torch._C.x()", "t._version", "getattr(t, '_base')",
     "import_module('torch._inductor.ir')", "from torch.autograd.graph import _engine_run_backward"],
)  # fmt: skip
def test_every_way_to_reach_a_private_name_is_seen(line):
    """The test above would find each of these."""
    assert private_names(ast.parse(line))


def loaded_without(monkeypatch, *names):
    """`torch_private` as it is where torch lacks `names`, and what it warned of."""
    find = pkgutil.resolve_name

    def lacking(path):
        if path in names:
            raise AttributeError(path)
        return find(path)

    monkeypatch.setattr(pkgutil, "resolve_name", lacking)
    spec = importlib.util.spec_from_file_location("lacking", torch_private.__file__)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lacking", module)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spec.loader.exec_module(module)
        module.inductor()
    return module, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("name", torch_private.NAMES)
def test_a_missing_name_is_replaced_or_refused_by_its_name(monkeypatch, name):
    """dropkit loads without any one name; a feature that cannot do without says which name and which torch."""
    module, warned = loaded_without(monkeypatch, name)

    use, plain = module.NAMES[name], name.replace(":", ".")
    assert not use.found
    assert len(warned) <= 1
    assert all(f"torch {torch.__version__} has no {plain}: {use.otherwise}" in text for text in warned)
    assert any(plain in line for line in module.missing())
    if use.otherwise is None:
        with pytest.raises(module.UnsupportedTorchError, match=rf"must have a torch with {plain} .*got torch 2\."):
            module.require(use.feature)


@pytest.mark.parametrize("name", torch_private.ATTRIBUTES)
def test_a_missing_attribute_is_refused_by_its_name(name):
    """What is read of torch's objects is missed by name as well."""
    with pytest.raises(torch_private.UnsupportedTorchError, match=rf"must have a torch with object.{name}"):
        torch_private.ATTRIBUTES[name](object())


# Which features of without_names.py cannot do without names that are there for what.
REFUSED = {
    torch_private.OPERATORS: {"transformed", "compiled"},
    torch_private.VMAP: {"transformed"},
    torch_private.INSTALL: {"installed"},
    torch_private.MC: {"monte_carlo"},
    torch_private.AUDIT: {"audited"},
}


def test_features_do_without_a_name_or_refuse():
    """Without every name that can be replaced all features work; without the others of a feature it says so."""
    arguments, expected = [], []
    uses = {name: use for name, use in torch_private.NAMES.items() if use.found}
    arguments.append(",".join(name for name, use in uses.items() if use.otherwise is not None))
    expected.append(set())
    for feature in {use.feature for use in uses.values() if use.otherwise is None} - {torch_private.NESTED}:
        names = ",".join(name for name, use in uses.items() if use.otherwise is None and use.feature == feature)
        expected.append(set().union(*(refusing for one, refusing in REFUSED.items() if one in feature)))
        arguments.append(f"{names}=eager,{','.join(expected[-1])}")
    command = [sys.executable, Path(__file__).parent / "helpers" / "without_names.py", *arguments]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    answers = [json.loads(line)["outcomes"] for line in done.stdout.splitlines()]
    for outcomes, refusing in zip(answers, expected, strict=True):
        failed = {feature: said for feature, said in outcomes.items() if said != "works"}
        assert failed.keys() == refusing, failed
        assert all("UnsupportedTorchError" in said and "must have a torch with" in said for said in failed.values())
