"""Misuses that something near them used to hide: a comment, an object of another class, a statement between."""

import textwrap

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.dropout_names import may_match
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = """\
from functools import partial
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
"""


def found(source):
    """The codes of all findings that are no remarks."""
    data = (HEAD + source).encode()
    findings = check(read("example.py", Text(data)), RULES) if may_match(data) else []
    return {finding.code for finding in findings if finding.severity.value != "info"}


def net(made, applied="return self.fc(x)", arguments="p=0.1", name="Block", rest=""):
    """A Module that makes a linear layer and what the lines `made` say, and runs the lines `applied`."""
    made, applied = (textwrap.indent(lines, " " * 8) for lines in (made, applied))
    head = f"class {name}(nn.Module):\n    def __init__(self, {arguments}):\n        super().__init__()\n"
    linear = "        self.fc = nn.Linear(3, 3)\n"
    return f"{head}{linear}{made}\n    def forward(self, x, y=None, flag=None):\n{applied}\n{rest}"


DROP = "self.dropout = nn.Dropout(p)"
BLOCK = "self.block = nn.Sequential(nn.Linear(3, 3), nn.Dropout(p))"
LOOP = "out = 0\nfor i in range(3):\n    {}\n    out = out + self.fc(x)\nreturn out"
NO_STATE = "use_reentrant=False, preserve_rng_state=False"
HIDDEN = {
    "DRP202": {
        "another plan": net(DROP, "# TODO: speed this up\ny = self.fc(x)\nreturn y"),
        "a plan in a docstring": net(DROP, '"""Run it.\n\nTODO: explain the shapes\n"""\nreturn self.fc(x)'),
        "a plan for the rate": net(DROP + "  # TODO: tune the rate"),
        "a promise in a docstring": net(DROP, '"""Applies self.dropout to x."""\nreturn self.fc(x)'),
        "another object": net(DROP, rest="def run(other, x):\n    return other.dropout(x)\n"),
        "an object of another kind": net(DROP, name="Encoder", rest="def run(decoder, x):\n    decoder.dropout(x)\n"),
        "an object with more": net(DROP, rest="def run(model, x):\n    return model.head(model.dropout(x))\n"),
        "a rate elsewhere": net(DROP, rest="def make(spec):\n    return nn.Dropout(spec.dropout)\n"),
        "a rate set from outside": net(DROP, rest="def set_rate(m, p):\n    m.dropout.p = p\n"),
        "a layer or None": net("if p > 0:\n    self.dropout = nn.Dropout(p)\nelse:\n    self.dropout = None"),
        "a list": net("self.drops = nn.ModuleList()\nfor i in range(3):\n    self.drops.append(nn.Dropout(p))"),
        "a list of layers or None": net(
            "drops = []\nfor i in range(3):\n    drops.append(nn.Dropout(p) if p else None)\n"
            "self.drops = nn.ModuleList(drops)"
        ),
    },
    "DRP105": {
        "layers or None": net("self.drops = []\nself.drops.append(nn.Dropout(p) if p else None)"),
        "one is applied": net("self.drops = [p and nn.Dropout(p), None]", "return self.drops[0](self.fc(x))"),
    },
    "DRP203": {
        "a known mix-in": "from huggingface_hub import PyTorchModelHubMixin\n"
        + net("", arguments="dropout=0.1").replace("(nn.Module)", "(nn.Module, PyTorchModelHubMixin)"),
        "a rate of a configuration": net("self.dropout = config.dropout", arguments="config"),
        "an item": net("self.dropout = config['dropout']", arguments="config"),
        "a default": net("self.dropout = getattr(config, 'dropout', 0.1)", arguments="config"),
        "a check": net("assert 0 <= dropout <= 1", arguments="dropout=0.1"),
        "a checked number": net(
            "if dropout > 1:\n    raise ValueError\nself.dropout = float(dropout)", arguments="dropout"
        ),
        "shown only": net("self.rate = drop_rate", arguments="drop_rate=0.1")
        + "    def extra_repr(self):\n        return f'{self.rate}'\n",
        "a comment": net("# The dropout is as in the paper.\nself.width = 3", arguments="dropout=0.1"),
    },
    "DRP106": {
        "a file without the word": "def evaluate(m, x):\n    m.training = False\n    return m(x)\n",
        "a class of another file": "from net import Net\nm = Net()\nm.training = False\nprint(m.state_dict())\n",
    },
    "DRP303": {
        "derived anew in a branch behind": net(
            DROP, LOOP.format("x = self.dropout(x)\n    if flag:\n        x = self.fc(y)")
        ),
        "derived anew in a branch before": net(
            DROP, LOOP.format("if flag:\n        x = self.fc(y)\n    x = self.dropout(x)")
        ),
        "handed on": net(DROP, LOOP.format("h = self.dropout(x)\n    x = h")),
    },
    "DRP304": {
        "a statement between": net(DROP, "x = self.dropout(x)\ny = y + 1\nx = self.dropout(x)\nreturn x + y"),
        "another name": net(DROP, "h = self.dropout(x)\nz = self.dropout(h)\nreturn self.fc(z)"),
        "a row that begins with it": net(
            DROP + "\nself.row = nn.Sequential(nn.Dropout(p), nn.Linear(3, 3))", "return self.row(self.dropout(x))"
        ),
        "nothing between": "row = nn.Sequential(nn.Dropout(0.1), nn.Identity(), nn.Dropout(0.1))\n",
    },
    "DRP204": {
        "a condition on the rate": net("self.rnn = nn.LSTM(3, 3, dropout=p if p > 0 else 0)"),
        "a switch": net("self.rnn = nn.GRU(3, 3, 1, dropout=p if flag else 0.0)", arguments="p, flag"),
        "or": net("self.rnn = nn.GRU(3, 3, dropout=p or 0.0)"),
        "one by default": net("self.rnn = nn.LSTM(3, 3, n, dropout=p)", arguments="p=0.5, n=1"),
        "made with one": net("self.rnn = nn.LSTM(3, 3, n, dropout=p)", arguments="p, n=1", rest="net = Block(0.5)\n"),
        "another class has more": net("self.n = 1\nself.rnn = nn.LSTM(3, 3, self.n, dropout=p)")
        + net("self.n = 4", name="Other"),
        "settings have more": "class Settings:\n    def __init__(self):\n        self.n = 4\n"
        + net("self.n = 1\nself.rnn = nn.GRU(3, 3, num_layers=self.n, dropout=p)"),
    },
    "DRP102": {
        "in an attribute": net(
            "self.attend = F.scaled_dot_product_attention", "return self.attend(x, x, x, None, 0.1)"
        ),
        "in a partial": net(
            "self.attend = partial(F.scaled_dot_product_attention, dropout_p=p)", "return self.attend(x, x, x)"
        ),
        "of the class": net("self.p = p", "return self.attend(x, x, x, dropout_p=self.p)")
        + "    attend = staticmethod(F.scaled_dot_product_attention)\n",
    },
    "DRP305": {
        "a partial": f"save = partial(checkpoint, {NO_STATE})\n" + net(BLOCK, "return save(self.block, x)"),
        "a partial in an attribute": net(
            f"{BLOCK}\nself.save = partial(checkpoint, {NO_STATE})", "return self.save(self.block, x)"
        ),
        "a function around": f"def save(f, *xs):\n    return checkpoint(f, *xs, {NO_STATE})\n"
        + net(BLOCK, "return save(self.block, x)"),
        "options": f"OPTIONS = dict({NO_STATE})\n" + net(BLOCK, "return checkpoint(self.block, x, **OPTIONS)"),
        "a partial passed on": "from torch.distributed.algorithms._checkpoint import checkpoint_wrapper as cw\n"
        f"wrap = partial(cw.checkpoint_wrapper, checkpoint_impl=cw.CheckpointImpl.NO_REENTRANT, {NO_STATE})\n"
        + net(BLOCK, "return self.block(x)", rest="cw.apply_activation_checkpointing(Block(), wrap)\n"),
        "layers that drop by default": net(
            "self.layers = nn.ModuleList([nn.TransformerEncoderLayer(4, 2)])",
            f"for layer in self.layers:\n    x = checkpoint(layer, x, {NO_STATE})\nreturn x",
        ),
    },
    "DRP309": {
        "beside other arguments": net("self.drop = nn.Dropout2d()", "return self.drop(self.fc(x))", "width, drop_rate"),
        "in a row": net("self.row = nn.Sequential(nn.Dropout(inplace=True))", "return self.row(x)", "dropout=0.2"),
    },
    "DRP411": {
        "a condition": net(
            "self.drop_path = nn.Dropout(p) if p else nn.Identity()", "return x + self.drop_path(x.relu())"
        ),
        "two steps": net("self.droppath1 = nn.Dropout(p)", "h = self.fc(x)\nh = self.droppath1(h)\nreturn x + h"),
        "a rate": net("self.d = nn.Dropout(drop_path)", "x = x + self.d(self.fc(x))\nreturn x", "drop_path"),
    },
    "DRP403": {
        "one of several outputs": net(DROP, "w = self.fc(x).softmax(-1)\nreturn self.dropout(w), x"),
        "in a dictionary": net(DROP, "w = self.fc(x).softmax(-1)\nreturn {'w': self.dropout(w)}"),
    },
    "DRP406": {
        "a forecast": net(
            f"{DROP}\nself.out = nn.Linear(3, horizon)", "return self.dropout(self.out(x))", "p, horizon"
        ),
        "a length": net(
            "self.row = nn.Sequential(nn.Linear(3, pred_len), nn.Dropout(p))", "return self.row(x)", "p, pred_len"
        ),
        "a head": net(f"{DROP}\nself.head = nn.Linear(3, 10)", "return self.dropout(self.head(x))"),
        "a whole model": net(
            f"{DROP}\nself.last = nn.Linear(3, 1)", "return self.dropout(self.last(x))", name="Regressor"
        ),
    },
}
FINE = {
    "a base has more layers": net("self.n = 2", name="Base", applied="return self.rnn(x)")
    + net("self.n = 1\nself.rnn = nn.LSTM(3, 3, self.n, dropout=p)", "return self.rnn(x)").replace("nn.Module", "Base"),
    "more layers from outside": net("self.n = 1\nself.rnn = nn.LSTM(3, 3, self.n, dropout=p)", "return self.rnn(x)")
    + "def grow(m):\n    m.n = 2\n",
    "the mode of one layer": "def run(drop, x):\n    drop.training = True\n    return drop(x)\n",
    "a plan for dropout": net(DROP, "# TODO: apply dropout\ny = self.fc(x)\nreturn y"),
    "commented out": net(DROP, "# x = self.dropout(x)\nreturn self.fc(x)"),
    "applied by an owner": net(
        DROP, name="Encoder", rest="def run(encoder, x):\n    return encoder.fc(encoder.dropout(x))\n"
    ),
    "applied by anything": net(DROP, rest="def run(model, x):\n    return model.dropout(model.fc(x))\n"),
    "applied by an annotated": net(DROP, rest="def run(b: 'Block', x):\n    return b.dropout(x)\n"),
    "a list that is applied": net(
        "self.drops = nn.ModuleList()\nself.drops.append(nn.Dropout(p))",
        "for drop in self.drops:\n    x = drop(x)\nreturn x",
    ),
    "a configuration passed on": net("self.dropout = config.dropout\nself.inner = make(config)", arguments="config"),
    "a setting applied elsewhere": net("self.dropout = config.dropout", arguments="config")
    + net("self.d = nn.Dropout(config.dropout)", "return self.d(x)", "config", "Other"),
    "derived anew in both branches": net(
        DROP, LOOP.format("if flag:\n        x = self.fc(y)\n    else:\n        x = y\n    x = self.dropout(x)")
    ),
    "derived anew but in the first round": net(
        DROP, LOOP.format("if i > 0:\n        x = self.fc(y)\n    x = self.dropout(x)")
    ),
    "dropped in one branch": net(DROP, "if flag:\n    x = self.dropout(x)\nx = self.dropout(x)\nreturn self.fc(x)"),
    "something between": net(DROP, "h = self.dropout(x)\nh = self.fc(h)\nreturn self.dropout(h)"),
    "a condition on the layers": net("self.rnn = nn.LSTM(3, 3, dropout=p if n > 1 else 0)", arguments="p, n=1"),
    "more layers passed": net(
        "self.rnn = nn.LSTM(3, 3, n, dropout=p)", arguments="p=0.5, n=1", rest="net = Block(n=2)\n"
    ),
    "a gated attribute": net(
        "self.attend = F.scaled_dot_product_attention",
        "return self.attend(x, x, x, dropout_p=0.1 if self.training else 0.0)",
    ),
    "a partial with the state": "save = partial(checkpoint, preserve_rng_state=True)\n"
    + net(BLOCK, "return save(self.block, x)"),
    "a partial without dropout": f"save = partial(checkpoint, {NO_STATE})\n" + net("", "return save(self.fc, x)"),
    "a rate for attention": net(
        "self.d = nn.Dropout()\nself.a = nn.MultiheadAttention(4, 2, attention_dropout)",
        "return self.a(self.d(x))",
        "attention_dropout=0.1",
    ),
    "drop path off the residual": net("self.drop_path = nn.Dropout(p)", "return self.fc(self.drop_path(x))"),
    "a part of a model": net(DROP, "return self.dropout(self.fc(x))", name="Encoder"),
}


@pytest.mark.parametrize(
    ("code", "source"),
    [pytest.param(code, source, id=f"{code}-{name}") for code, each in HIDDEN.items() for name, source in each.items()],
)
def test_a_misuse_is_found_whatever_stands_near_it(code, source):
    assert code in found(source)


@pytest.mark.parametrize("source", FINE.values(), ids=FINE)
def test_what_is_applied_once_and_as_named_is_left_alone(source):
    assert found(source) == set()
