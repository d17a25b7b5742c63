"""The name that a file gives to torch's functions and layers changes no finding."""

import re

import pytest
from helpers.aliases import DEFINITIONS, codes, under_aliases

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

EXAMPLES = {
    f"{rule.code}-{index}": example.bad
    for rule in RULES
    if rule.check_source is not None
    for index, example in enumerate(rule.examples)
}
HEAD = "import torch\nfrom torch import nn\n"
IN_FORWARD = """

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = {layer}

    def forward(self, x):
        return {call}
"""


@pytest.mark.parametrize("define", DEFINITIONS)
@pytest.mark.parametrize("program", EXAMPLES.values(), ids=EXAMPLES)
def test_aliases_change_no_finding_of_an_example(program, define):
    """Every rule finds its own example on the same lines. The programs of other tests are checked by a fixture."""
    changed = under_aliases(program, define)

    assert "zq0" in changed
    assert not re.search(r"\b(?:nn|F)\.\w+\(", changed)
    assert codes(changed) == codes(program)


@pytest.mark.parametrize(
    ("imports", "call", "code"),
    [
        ("from torch.nn.functional import dropout as thin_out", "thin_out(x, 0.5)", "DRP101"),
        ("import torch.nn.functional as funky; d = funky.dropout", "d(x, 0.5)", "DRP101"),
        ("from torch.nn import functional as G", "G.dropout(x)", "DRP101"),
        ("from torch.nn import Dropout as Zap", "Zap(0.5)(x)", "DRP103"),
        ("from torch.nn import Dropout2d as S2, functional as G", "S2(0.5)(x)", "DRP103"),
        ("Layer = nn.Dropout", "Layer(0.5)(x)", "DRP103"),
        ("from torch.nn import Dropout; Layer = Dropout; Other = Layer", "Other(0.5)(x)", "DRP103"),
        ("import torch.nn.modules.dropout as m", "m.Dropout(0.5)(x)", "DRP103"),
        ("from torch.nn.functional import scaled_dot_product_attention as att", "att(x, x, x, None, 0.5)", "DRP102"),
    ],
)
def test_a_dropout_is_known_by_what_its_name_stands_for(imports, call, code):
    source = f"{HEAD}{imports}\n{IN_FORWARD.format(layer='None', call=call)}"

    assert [code for _, code in codes(source)] == [code]


def test_another_function_of_the_same_name_is_no_dropout():
    source = f"{HEAD}from tools import dropout\n{IN_FORWARD.format(layer='None', call='dropout(x, 0.5)')}"

    assert codes(source) == []


def test_a_message_names_the_layer_and_not_its_alias():
    source = HEAD + "from torch.nn import Dropout2d as Zap\nnn.Sequential(nn.Linear(8, 8), Zap(0.5), nn.LayerNorm(8))\n"

    findings = check(read("example.py", Text(source.encode())), RULES)

    assert [finding.message for finding in findings] == ["Dropout2d on features without channels"]
