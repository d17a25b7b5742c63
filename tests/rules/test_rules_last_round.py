"""Dropout that the last round of a loop leaves out does not reach what follows the loop."""

import textwrap

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
DROP, LAYER = "x = F.dropout(layer(x), 0.5, training=self.training)", "x = layer(x)"
ROUNDS = "for i, layer in enumerate(self.layers):"


def found(loop, after="return torch.sigmoid(x)"):
    source = (
        f"{HEAD}class Net(nn.Module):\n    def __init__(self, n, last):\n        super().__init__()\n"
        "        self.n, self.last_index = n, last\n"
        "        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(n)])\n"
        "    def forward(self, x, flag=None):\n        n = len(self.layers)\n"
        + textwrap.indent(f"{loop}\n{after}\n", " " * 8)
    )
    return {finding.code for finding in check(read("net.py", Text(source.encode())), RULES)}


def choice(test, body=DROP, orelse=LAYER, head=ROUNDS):
    return f"{head}\n    if {test}:\n        {body}\n    else:\n        {orelse}"


def after(test, head=ROUNDS):
    return f"{head}\n    {LAYER}\n    if {test}:\n        x = F.dropout(x, 0.5, self.training)"


LEFT_OUT = {
    "below": choice("i < len(self.layers) - 1"),
    "not at": choice("i != n - 1"),
    "next one": choice("i + 1 < n"),
    "next one is no end": choice("i + 1 != len(self.layers)"),
    "mirrored": choice("n - 1 > i"),
    "else": choice("i == n - 1", LAYER, DROP),
    "not": choice("not i == self.n - 1"),
    "and": choice("i < n - 1 and self.n > 3"),
    "name": choice("i != self.last_index"),
    "local name": f"end = n - 1\n{choice('i < end')}",
    "layer": choice("layer is not self.layers[-1]", head="for layer in self.layers:"),
    "elif": f"{ROUNDS}\n    if i == n - 1:\n        {LAYER}\n    elif i > 2:\n        {DROP}\n    else:\n        pass",
    "after the layer": after("i < n - 1"),
    "range": after("i < n - 1", "for i in range(n):\n    layer = self.layers[i]"),
    "break": f"{ROUNDS}\n    {LAYER}\n    if i == n - 1:\n        break\n    x = F.dropout(x, 0.5, self.training)",
    "continue": f"{ROUNDS}\n    {LAYER}\n    if i >= n - 1:\n        continue\n    x = F.dropout(x, 0.5, flag)",
}
REACHES = {
    "always": f"{ROUNDS}\n    {DROP}",
    "first left out": choice("i > 0"),
    "last alone": choice("i == n - 1"),
    "every other": choice("i % 2 == 0"),
    "or": choice("i < n - 1 or self.n > 3"),
    "a switch": choice("self.n > 3"),
    "another loop": f"{choice('i < n - 1')}\nfor layer in self.layers:\n    {DROP}",
    "used in the round": "for i, layer in enumerate(self.layers):\n    if i < n - 1:\n        "
    f"{DROP}\n    else:\n        {LAYER}\n    x = torch.sigmoid(x)",
}


@pytest.mark.parametrize("loop", LEFT_OUT.values(), ids=LEFT_OUT)
def test_dropout_before_the_last_round_does_not_reach_the_end(loop):
    assert not found(loop)


@pytest.mark.parametrize("loop", REACHES.values(), ids=REACHES)
def test_dropout_that_may_run_last_reaches_the_end(loop):
    assert "DRP408" in found(loop)
