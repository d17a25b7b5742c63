"""Dropout of the wrong kind or in the wrong place: what the rules must also see, and what they must leave alone."""

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = """import torch
import torch.nn.functional as F
from collections import OrderedDict
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
"""


def model(made, applied, name="Net", arguments="x, y=None", method="forward"):
    """A module that makes its layers by the lines `made` and runs the lines `applied`."""
    lines = [f"class {name}(nn.Module):", "    def __init__(self, p=0.1, n=1):", "        super().__init__()"]
    lines += [f"        {line}" for line in made.split("\n")] + [f"    def {method}(self, {arguments}):"]
    return HEAD + "\n".join([*lines, *(f"        {line}" for line in applied.split("\n"))]) + "\n"


DROP = "self.drop = nn.Dropout(p, inplace=True)\nself.act = nn.ReLU()\nself.fc = nn.Linear(8, 8)"
CHANNELS = "self.drop = nn.Dropout2d(p)\nself.conv = nn.Conv2d(3, 3, 1)\nself.fc = nn.Linear(8, 8)"
OUTPUT = "self.drop = nn.Dropout(p)\nself.fc = nn.Linear(8, 8)"
BLOCK = model("self.drop = nn.Dropout(p)", "return self.drop(x)", name="Block")
RUN = "    def run(self, x):\n        return self.drop(x)\n"
SAVE = "use_reentrant=False, preserve_rng_state=False"

FOUND = {
    "DRP204": [
        model("self.rnn = nn.GRU(8, 8, 1, True, True, p)", "return self.rnn(x)"),
        model("self.rnn = nn.RNN(8, 8, dropout=0.5)", "return self.rnn(x)"),
        model("self.layers = 1\nself.rnn = nn.LSTM(8, 8, self.layers, dropout=p)", "return self.rnn(x)"),
        model("layers = 1\nself.rnn = nn.LSTM(8, 8, num_layers=layers, dropout=p)", "return self.rnn(x)"),
        HEAD + "LAYERS = 1\nrnn = nn.LSTM(8, 8, LAYERS, dropout=0.2)\n",
    ],
    "DRP305": [
        model("self.drop = nn.Dropout(p)", f"return checkpoint(self.run, x, {SAVE})") + RUN,
        model("self.drop = nn.Dropout(p)", f"def run(x):\n    return self.drop(x)\nreturn checkpoint(run, x, {SAVE})"),
        model("self.drop = nn.Dropout(p)", f"return checkpoint(lambda x: F.relu(self.drop(x)), x, {SAVE})"),
        BLOCK + model("self.blocks = nn.ModuleList([Block() for _ in range(n)])",
                      f"for block in self.blocks:\n    x = checkpoint(block, x, {SAVE})\nreturn x"),
        BLOCK + model("self.blocks = nn.Sequential(Block(), Block())",
                      f"return checkpoint_sequential(self.blocks, 2, x, {SAVE})"),
        model("self.layer = nn.TransformerEncoderLayer(8, 2)", f"return checkpoint(self.layer, x, {SAVE})"),
    ],
    "DRP401": [
        HEAD + "net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True))\n",
        HEAD + "net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5, True))\n",
        HEAD + "net = nn.Sequential(OrderedDict([('a', nn.Sigmoid()), ('d', nn.Dropout(0.5, True))]))\n",
        HEAD + "layers = [nn.Linear(8, 8), nn.ReLU()]\nif p:\n    layers.append(nn.Dropout(p, True))\n",
        HEAD + "net = nn.Sequential(nn.LeakyReLU(0.1, inplace=True), nn.Dropout2d(0.5, inplace=True))\n",
        model(DROP, "return self.drop(self.act(self.fc(x)))"),
        model(DROP, "x = torch.exp(x).view(2, -1)\nreturn self.drop(x)"),
        model(DROP, "w = F.softmax(x, dim=-1, dtype=torch.float32).type_as(x)\nw = self.drop(w)\nreturn w @ y"),
        model(DROP, "if y:\n    x = F.gelu(x)\nelse:\n    x = self.act(x)\nreturn self.drop(x)"),
        model("self.act = nn.Sigmoid()", "return F.dropout(self.act(x), 0.5, self.training, True)"),
        model("self.drop = nn.Dropout(p, inplace=True) if p > 0 else nn.Identity()", "return self.drop(x.softmax(-1))"),
        model(DROP, "z = self.drop(x)\nreturn x + z"),
        model(DROP, "x = self.fc(x)\nreturn x + self.drop(x)"),
        model(DROP, "skip = x\nx = self.drop(x)\nreturn self.fc(x) + skip"),
    ],
    "DRP402": [
        HEAD + "net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout2d(0.5))\n",
        HEAD + "net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Dropout3d(0.5))\n",
        HEAD + "net = nn.Sequential(nn.Dropout1d(0.2), nn.Linear(8, 2))\n",
        HEAD + "layers = [nn.Linear(8, 8)]\nlayers.append(nn.GELU())\nlayers.append(nn.Dropout2d(0.2))\n",
        model(CHANNELS, "x = self.conv(x).view(x.size(0), -1)\nreturn self.drop(x)"),
        model(CHANNELS, "x = torch.flatten(self.conv(x), 1)\nx = self.drop(x)\nreturn self.fc(x)"),
        model(CHANNELS, "x = self.conv(x).mean(dim=(2, 3))\nreturn self.drop(x)"),
        model(CHANNELS, "return F.dropout2d(F.relu(self.fc(x)), 0.5, self.training)"),
        model(CHANNELS, "x = self.drop(y)\nx = self.fc(x)\nreturn x"),
    ],
    "DRP403": [
        HEAD + "net = nn.Sequential(nn.Linear(8, 2), nn.LogSoftmax(dim=1), nn.Dropout(0.2))\n",
        model(OUTPUT, "return self.drop(F.softmax(self.fc(x), dim=1))"),
        model(OUTPUT, "x = torch.softmax(self.fc(x), dim=1)\nx = self.drop(x)\nreturn x"),
        model(OUTPUT, "x = self.drop(self.fc(x).softmax(1))\nreturn F.binary_cross_entropy(x, y)", method="step"),
        model(OUTPUT, "return F.dropout(F.log_softmax(x, dim=1), 0.5, self.training)"),
        model("self.head = nn.Sequential(nn.Linear(8, 2), nn.Softmax(dim=1), nn.Dropout(p))", "return self.head(x)"),
    ],
    "DRP404": [
        model("self.drop = nn.Dropout(p)\nself.act = nn.SELU()", "return self.drop(self.act(x))"),
        model(OUTPUT, "x = F.selu(self.fc(x))\nx = F.dropout(x, 0.1, self.training)\nreturn x"),
        HEAD + "net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.AlphaDropout(0.1))\n",
    ],
}  # fmt: skip

CLEAN = {
    "DRP204": [
        model("m = n\nself.rnn = nn.LSTM(8, 8, m, dropout=p)", "return self.rnn(x)"),
        model("self.rnn = nn.LSTM(8, 8, num_layers=n, dropout=p if n > 1 else 0)", "return self.rnn(x)"),
        model("q = 0 if n == 1 else p\nself.rnn = nn.LSTM(8, 8, 1, dropout=q)", "return self.rnn(x)"),
        model("self.rnn = nn.LSTM(8, 8, 1, dropout=p * (n > 1))", "return self.rnn(x)"),
        model(
            "self.rnn = nn.LSTM(8, 8, 1, dropout=0.0)\nq = 0\nself.gru = nn.GRU(8, 8, dropout=q)", "return self.rnn(x)"
        ),
        model("self.rnn = nn.LSTM(8, 8, dropout=p, **y)\nself.gru = nn.GRU(*y, dropout=p)", "return self.rnn(x)"),
        model("self.layers = 1\nif p:\n    self.layers = 2\nself.rnn = nn.LSTM(8, 8, self.layers, dropout=p)", "pass"),
        HEAD + "LSTM = custom\nrnn = LSTM(8, 8, num_layers=1, dropout=0.2)\n",
    ],
    "DRP305": [
        model("self.fc = nn.Linear(8, 8)\nself.drop = nn.Dropout(p)", f"return checkpoint(self.fc, x, {SAVE})"),
        model("self.drop = nn.Dropout(p)", f"return checkpoint(self.run, x, {SAVE})")
        + RUN.replace("drop(x)", "run(x) * 2"),
        model("self.fc = nn.Linear(8, 8)", f"return checkpoint(self.fc, x, {SAVE})"),
        model("self.drop = nn.Dropout(p)", "return checkpoint(self.drop, x, use_reentrant=False)"),
        model("self.drop = nn.Dropout(0.0)", f"return checkpoint(self.drop, x, {SAVE})"),
        model("self.drop = nn.Dropout(p)", f"return checkpoint(F.gelu, x, {SAVE})"),
        HEAD + f"def run(model, x):\n    return checkpoint(model, x, {SAVE})\n",
    ],
    "DRP401": [
        HEAD + "net = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.5, inplace=True))\n",
        HEAD
        + "net = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.5), nn.LeakyReLU(0.1), nn.Dropout(0.5, True))\n",
        HEAD + "net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5, inplace=True))\n",
        HEAD + "net = nn.ModuleList([nn.ReLU(), nn.Dropout(0.5, inplace=True)])\n",
        HEAD + "net = nn.Sequential(nn.ReLU(), nn.Dropout(0.0, inplace=True), nn.SELU(), nn.AlphaDropout(0.1, True))\n",
        model(DROP, "x = x + self.drop(self.fc(x))\nreturn self.drop(F.layer_norm(x, (8,)))"),
        model(DROP, "w = x.softmax(-1) * y\nreturn self.drop(w)"),
        model(DROP, "return self.drop(F.softmax(x, -1).transpose(0, 1).contiguous())"),
        model(DROP, "return self.drop(F.softmax(x.float(), -1).to(torch.float16))"),
        model(DROP, "if y:\n    x = self.act(x)\n    return x\nx = self.drop(x)\nreturn x"),
        model(DROP, "skip = x\nx = self.fc(x)\nx = self.drop(x)\nreturn x + skip"),
        model(DROP, "z = self.drop(x)\nreturn z.view(x.shape)"),
        HEAD + "def rows(x):\n    return [lambda: F.dropout(x, inplace=True), lambda: x.sum()]\n",
        model(DROP, "return F.dropout(x.sigmoid(), p=0.5, training=False, inplace=True)"),
    ],
    "DRP402": [
        HEAD + "net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(8, 2))\n",
        HEAD + "net = nn.Sequential(nn.Linear(8, 8), nn.Unflatten(1, (2, 2, 2)), nn.Dropout2d(0.5))\n",
        HEAD + "net = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout1d(0.5))\n",
        model(CHANNELS, "x = self.drop(self.conv(x))\nx = x.view(-1, 8)\nreturn self.fc(x)"),
        model(CHANNELS, "x = self.fc(x).view(-1, 2, 2, 2)\nreturn self.drop(x)"),
        model(CHANNELS, "x = self.fc(x).permute(0, 3, 1, 2)\nx = self.drop(x)\nreturn x"),
        model(CHANNELS, "if y:\n    x = self.fc(x)\nreturn self.drop(x)"),
        model(CHANNELS, "return self.drop(x.mean(dim=(2, 3), keepdim=True))"),
        model("self.drop = nn.Dropout(p)\nself.fc = nn.Linear(8, 8)", "return self.drop(self.fc(x))"),
    ],
    "DRP403": [
        model(OUTPUT, "attn = F.softmax(x, dim=-1)\nattn = self.drop(attn)\nreturn attn @ y"),
        model(OUTPUT, "w = self.drop(F.softmax(x, dim=-1))\nreturn torch.bmm(w, y)"),
        model(OUTPUT, "return self.drop(F.softmax(x, dim=-1))", name="EdgeAttention"),
        model(OUTPUT, "return self.drop(F.softmax(x, dim=-1))", method="mask"),
        model("self.net = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Dropout(p))", "return self.net(x) * y"),
        model(OUTPUT, "return F.log_softmax(self.drop(self.fc(x)), dim=1)"),
    ],
    "DRP404": [
        HEAD
        + "net = nn.Sequential(nn.Linear(8, 8), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(8, 2), nn.Dropout(0.1))\n",
        HEAD + "net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.SELU(), nn.Dropout(0.1))\n",
        HEAD + "net = nn.Sequential(nn.Linear(8, 8), nn.ELU(), nn.AlphaDropout(0.1))\n",
        HEAD + "net = nn.Sequential(nn.SELU(), nn.Dropout(0.0))\n",
        model("self.act = y\nself.drop = nn.AlphaDropout(p)", "return self.drop(self.act(x))"),
        model("self.drop = nn.AlphaDropout(p)", "return F.selu(self.drop(F.relu(x)))"),
    ],
}


def each(sources):
    cases = [(code, source) for code, several in sources.items() for source in several]
    ids = [f"{code}-{index}" for code, several in sources.items() for index, _ in enumerate(several)]
    return pytest.mark.parametrize(("code", "source"), cases, ids=ids)


def codes(source):
    return [finding.code for finding in check(read("example.py", Text(source.encode())), RULES)]


@each(FOUND)
def test_the_misuse_is_found_in_other_forms(code, source):
    assert code in codes(source)


@each(CLEAN)
def test_code_that_only_looks_like_it_is_left_alone(code, source):
    assert code not in codes(source)
