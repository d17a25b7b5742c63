"""A layer that is moved where it is set, to a device, a dtype or a mode, is the layer that it was."""

import textwrap

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = """\
import copy
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import weight_norm
from torch.nn.utils.parametrizations import spectral_norm
"""


def found(source):
    """The codes of all findings, also of remarks."""
    return {finding.code for finding in check(read("example.py", Text((HEAD + source).encode())), RULES)}


def net(layers, applied, before=""):
    """A Module that makes `layers`, by attribute, and runs the lines `applied`."""
    lines = [before, *layers, *applied.split("\n")]
    made = "\n".join(line for line in lines[: len(layers) + 1] if line)
    body = "\n".join(lines[len(layers) + 1 :])
    return (
        "class Net(nn.Module):\n    def __init__(self, device, use_gpu, p=0.5):\n        super().__init__()\n"
        + textwrap.indent(made, " " * 8)
        + "\n    def forward(self, x):\n"
        + textwrap.indent(body, " " * 8)
        + "\n"
    )


# By code, the layers by attribute, which MOVES set, and the body of `forward`.
DROP, DROP2D, INPLACE = "nn.Dropout(p)", "nn.Dropout2d(p)", "nn.Dropout(p, inplace=True)"
LINEAR, NORM, SOFTMAX, SIGMOID = "nn.Linear(8, 8)", "nn.BatchNorm1d(8)", "nn.Softmax(-1)", "nn.Sigmoid()"
PROGRAMS = {
    "DRP201": ({"fc": LINEAR, "drop": DROP}, "self.drop(x)\nreturn self.fc(x)"),
    "DRP202": ({"fc": LINEAR, "drop": DROP}, "return self.fc(x)"),
    "DRP202 with a number": ({"fc": LINEAR, "drop": "nn.Dropout(0.3)"}, "return self.fc(x)"),
    "DRP304": ({"fc": LINEAR, "drop": DROP}, "x = self.drop(x)\nx = self.drop(x)\nreturn self.fc(x)"),
    "DRP401": ({"act": SIGMOID, "drop": INPLACE}, "return self.drop(self.act(x))"),
    "DRP402": ({"fc": LINEAR, "drop": DROP2D}, "return F.relu(self.drop(self.fc(x)))"),
    "DRP403": ({"fc": LINEAR, "soft": SOFTMAX, "drop": DROP}, "return self.drop(self.soft(self.fc(x)))"),
    "DRP407": ({"norm": NORM, "drop": DROP}, "return self.norm(self.drop(x))"),
    "DRP408": ({"act": SIGMOID, "drop": DROP}, "return self.act(self.drop(x))"),
}
MOVES = {
    "not moved": "self.{0} = {1}",
    "to a device": "self.{0} = {1}.to(device)",
    "on its own line": "self.{0} = {1}\nself.{0} = self.{0}.cuda()",
    "by keyword": "self.{0} = {1}.to(device=device, non_blocking=True)",
    "twice": "self.{0} = {1}.to(device).half()",
    "if wanted": "self.{0} = {1}\nif use_gpu:\n    self.{0} = self.{0}.cuda()",
    "by an expression": "self.{0} = {1}\nself.{0} = self.{0}.cuda() if use_gpu else self.{0}",
    "in either arm": "self.{0} = {1}.cuda() if use_gpu else {1}",
    "a mode": "self.{0} = {1}.eval().requires_grad_(False)",
    "a dtype": "self.{0} = {1}\nself.{0} = self.{0}.double()",
    "to itself": "self.{0} = {1}\nself.{0} = self.{0}",
    "compiled": "self.{0} = torch.compile({1}, dynamic=True)",
    "copied": "self.{0} = copy.deepcopy({1})",
}
LOCALS = {
    "through a local name": "{0} = {1}\n{0} = {0}.to(device)\nself.{0} = {0}",
    "from either arm": "if use_gpu:\n    {0} = {1}.cuda()\nelse:\n    {0} = {1}\nself.{0} = {0}",
}
APPLIED = [code for code in PROGRAMS if "DRP202" not in code]


def moved(code, move):
    layers, applied = PROGRAMS[code]
    return net([move.format(name, layer) for name, layer in layers.items()], applied)


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("code", PROGRAMS)
def test_a_moved_layer_is_the_layer(code, move):
    """Each rule finds its misuse whichever way the layers were moved."""
    assert code[:6] in found(moved(code, move))


@pytest.mark.parametrize("move", LOCALS.values(), ids=LOCALS)
@pytest.mark.parametrize("code", APPLIED)
def test_a_layer_that_a_local_name_holds_first_is_the_layer(code, move):
    assert code in found(moved(code, move))


@pytest.mark.parametrize(
    "made",
    [
        "weight_norm(nn.Linear(8, 8))",
        "spectral_norm(nn.Linear(8, 8), name='weight')",
        "weight_norm(nn.Linear(8, 8)).to(device)",
        "torch.jit.script(nn.Linear(8, 8))",
    ],
)
def test_a_wrapper_of_a_linear_layer_makes_a_linear_layer(made):
    source = net([f"self.fc = {made}", f"self.drop = {DROP2D}"], "return F.relu(self.drop(self.fc(x)))")

    assert "DRP402" in found(source)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("nn.Dropout(p).to(device), nn.BatchNorm1d(8)", "DRP407"),
        ("nn.Dropout(p), nn.BatchNorm1d(8).to(device)", "DRP407"),
        ("weight_norm(nn.Linear(8, 8)), nn.Dropout2d(p)", "DRP402"),
        ("nn.Linear(8, 8), nn.Dropout2d(p).cuda()", "DRP402"),
        ("nn.Sigmoid().cuda(), nn.Dropout(p, inplace=True).cuda()", "DRP401"),
    ],
)
def test_layers_in_a_row_are_moved_too(row, code):
    assert code in found(net([f"self.row = nn.Sequential({row}).to(device)"], "return self.row(x)"))


@pytest.mark.parametrize("call", ["nn.Dropout(0.5).to(x.device)(x)", "nn.Dropout(0.5).cuda()(x)"])
def test_a_layer_that_is_built_and_moved_per_call_is_built_per_call(call):
    assert "DRP103" in found(net(["self.fc = nn.Linear(8, 8)"], f"return self.fc({call})"))


@pytest.mark.parametrize("call", ["nn.Dropout(0.5).train(self.training)(x)", "nn.Dropout(0.5).eval()(x)"])
def test_a_layer_that_is_built_with_a_mode_is_no_oversight(call):
    assert "DRP103" not in found(net(["self.fc = nn.Linear(8, 8)"], f"return self.fc({call})"))


@pytest.mark.parametrize("line", ["self.drop.to(device)", "self.drop.eval()", "self.drop.requires_grad_(False)"])
def test_a_layer_that_is_only_moved_is_never_applied(line):
    assert "DRP202" in found(net([f"self.drop = {DROP}", line], "return x"))


@pytest.mark.parametrize(
    "made",
    [
        "self.drop = self.make().to(device)",
        "self.drop = p.to(device)",
        "self.drop = nn.Dropout(p)\nself.drop = self.other.to(device)",
        "self.drop = nn.Dropout(p)\nself.drop = self.drop.children()",
        "drop = nn.Dropout(p)\nif use_gpu:\n    drop = p\nself.drop = drop",
        "self.a = self.drop\nself.drop = self.a",
    ],
)
def test_what_may_be_another_layer_is_unknown(made):
    assert "DRP201" not in found(net([made], "self.drop(x)\nreturn x"))
