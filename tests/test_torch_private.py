"""The private names of torch: only one package reaches them, and what happens on a torch that lacks them."""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import dropkit
from dropkit import torch_private

torch_private.inductor()

PACKAGE = Path(torch_private.__file__).parent
SOURCES = sorted(path for path in PACKAGE.parent.rglob("*.py") if path.parent != PACKAGE)
# Names of Python itself, and of pygls.
PYTHONS = {"_getframe", "_run_module_as_main", "_fields", "_replace", "_asdict", "_send_data"}


def is_private(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"_(?!_|dropkit)\w+", name) is not None


def private_names(tree: ast.AST) -> set[str]:
    """The private names that a file imports or reads of objects, by any syntax."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and not (node.module or "dropkit").startswith("dropkit"):
            names.update([*node.module.split("."), *(alias.name for alias in node.names)])
        elif isinstance(node, ast.Import):
            names.update(part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("attr", "attrgetter", "import_module")):
            # Only strings that are arguments of getattr and the like; a docstring may name anything.
            constants = (argument for argument in node.args if isinstance(argument, ast.Constant))
            names.update(part for constant in constants for part in str(constant.value).split("."))
    return {name for name in names if is_private(name)}


def own_names(tree: ast.AST) -> set[str]:
    """The names that a file gives to functions, classes, variables and attributes of its own objects."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name)
    return names


def test_no_other_file_reaches_a_private_name_of_torch():
    """A name with an underscore that another file reads is dropkit's own or Python's."""
    trees = {path: ast.parse(path.read_text()) for path in SOURCES}
    own = PYTHONS.union(*map(own_names, trees.values()))

    reached = {str(path): names for path, tree in trees.items() if (names := private_names(tree) - own)}

    assert reached == {}


@pytest.mark.parametrize(
    "line",
    ["from torch._C import x", "import torch._dynamo", "torch._C.x()", "t._version", "getattr(t, '_base')",
     "import_module('torch._inductor.ir')", "from torch.autograd.graph import _engine_run_backward"],
)  # fmt: skip
def test_every_way_to_reach_a_private_name_is_seen(line):
    """The test above would find each of these."""
    assert private_names(ast.parse(line))


def loaded_without(monkeypatch, *names):
    """A second copy of `torch_private`, on a torch that lacks `names`, and its warnings."""
    resolve_name = pkgutil.resolve_name

    def lacking(path):
        if path in names:
            raise AttributeError(path)
        return resolve_name(path)

    monkeypatch.setattr(pkgutil, "resolve_name", lacking)
    monkeypatch.setattr(dropkit, "torch_private", torch_private)  # restored after the second import
    for name in [name for name in sys.modules if name.startswith("dropkit.torch_private")]:
        monkeypatch.delitem(sys.modules, name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = importlib.import_module("dropkit.torch_private")
        module.inductor()
    for name in [name for name in sys.modules if name.startswith("dropkit.torch_private")]:
        del sys.modules[name]
    return module, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("name", torch_private.NAMES)
def test_a_missing_name_is_replaced_or_refused_by_its_name(monkeypatch, name):
    """dropkit loads without any one name; a feature that needs it raises with the name and torch's version."""
    module, warned = loaded_without(monkeypatch, name)

    use, plain = module.NAMES[name], name.replace(":", ".")
    assert not use.is_found
    assert len(warned) <= 1
    assert all(f"torch {torch.__version__} has no {plain}: {use.otherwise}" in text for text in warned)
    assert any(plain in line for line in module.missing())
    if use.otherwise is None:
        with pytest.raises(module.UnsupportedTorchError, match=rf"must have a torch with {plain} .*got torch 2\."):
            module.require(use.feature)


@pytest.mark.parametrize("name", torch_private.ATTRIBUTES)
def test_a_missing_attribute_is_refused_by_its_name(name):
    """An attribute that torch's objects lack raises with its name, too."""
    with pytest.raises(torch_private.UnsupportedTorchError, match=rf"must have a torch with object.{name}"):
        torch_private.ATTRIBUTES[name](object())


# The features of without_names.py that raise without the names of each feature of dropkit.
REFUSED = {
    torch_private.OPERATORS: {"transformed", "compiled"},
    torch_private.VMAP: {"transformed"},
    torch_private.INSTALL: {"installed"},
    torch_private.MC: {"monte_carlo"},
    torch_private.AUDIT: {"audited"},
}


def test_features_work_without_a_name_or_raise():
    """Without every name that has a substitute all features work; without the other names of a feature it raises."""
    arguments, expected = [], []
    uses = {name: use for name, use in torch_private.NAMES.items() if use.is_found}
    arguments.append(",".join(name for name, use in uses.items() if use.otherwise is not None))
    expected.append(set())
    for feature in {use.feature for use in uses.values() if use.otherwise is None} - {torch_private.NESTED}:
        names = ",".join(name for name, use in uses.items() if use.otherwise is None and use.feature == feature)
        expected.append(set().union(*(refusing for name, refusing in REFUSED.items() if name in feature)))
        arguments.append(f"{names}=eager,{','.join(expected[-1])}")
    command = [sys.executable, Path(__file__).parent / "helpers" / "without_names.py", *arguments]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    answers = [json.loads(line)["outcomes"] for line in done.stdout.splitlines()]
    for outcomes, refusing in zip(answers, expected, strict=True):
        failed = {feature: said for feature, said in outcomes.items() if said != "works"}
        assert failed.keys() == refusing, failed
        assert all("UnsupportedTorchError" in said and "must have a torch with" in said for said in failed.values())
