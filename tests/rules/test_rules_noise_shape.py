"""Rules about elementwise dropout, where `noise_shape` makes elements share mask elements."""

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = "import dropkit.functional as F\nfrom dropkit.nn import Dropout\nfrom torch import nn\n"
CLASS = HEAD + "class Net(nn.Module):\n    def forward(self, x):\n        "
# By the option that goes where {} is. Each is reported without the option.
ELEMENTWISE = {
    "DRP304": HEAD + "net = nn.Sequential(Dropout(0.5{0}), Dropout(0.5{0}))\n",
    "DRP404": HEAD + "net = nn.Sequential(nn.Linear(8, 8), nn.SELU(), Dropout(0.5{0}))\n",
    "DRP409": HEAD + "net = nn.Sequential(nn.Conv2d(3, 8, 3), Dropout(0.5{0}), nn.ReLU())\n",
}
# These are reported with the option, too.
ALWAYS = {
    "DRP101": CLASS + "return F.dropout(x, 0.5{0})\n",
    "DRP103": CLASS + "return Dropout(0.5{0})(x)\n",
    "DRP401": HEAD + "net = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), Dropout(0.5, True{0}))\n",
}


def found(source, option):
    text = source.replace("{0}", option)
    return [(one.code, one.fix is not None) for one in check(read("example.py", Text(text.encode())), RULES)]


@pytest.mark.parametrize("code", ELEMENTWISE)
def test_rules_about_single_elements_are_silent(code):
    """What is dropped is not single elements, so it is no misuse of elementwise dropout."""
    assert code in dict(found(ELEMENTWISE[code], ""))
    assert code not in dict(found(ELEMENTWISE[code], ", noise_shape=(None, None, 1, 1)"))


@pytest.mark.parametrize("code", ALWAYS)
def test_other_rules_read_the_call_as_a_dropout(code):
    """Rate, flag and `inplace` mean the same."""
    assert code in dict(found(ALWAYS[code], ", noise_shape=(None, 1)"))


def test_no_fix_loses_the_option():
    """A layer that is built for each call has a fix only without it."""
    assert ("DRP103", True) in found(ALWAYS["DRP103"], "")
    assert ("DRP103", False) in found(ALWAYS["DRP103"], ", noise_shape=(None, 1)")
