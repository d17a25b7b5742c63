"""Dropout that is never applied, or applied too often: further misuses, and what must not be taken for one."""

import textwrap

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import (
    drp202_dropout_never_applied,
    drp203_dropout_argument_ignored,
    drp303_loop_compounded_dropout,
    drp304_double_dropout,
)

RULES = (
    drp202_dropout_never_applied.RULE,
    drp203_dropout_argument_ignored.RULE,
    drp303_loop_compounded_dropout.RULE,
    drp304_double_dropout.RULE,
)
HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\nfrom timm.layers import DropPath\n"


def layer(constructor="pass", forward="return x", arguments="", base="nn.Module", rest=""):
    """A module with one constructor and one forward, statements parted by semicolons or lines."""
    built, run = (textwrap.indent(textwrap.dedent(part), " " * 8) for part in (constructor, forward))
    return (
        f"class Layer({base}):\n    def __init__(self, dropout{arguments}):\n        super().__init__()\n{built}\n\n"
        f"    def forward(self, x):\n{run}\n{rest}"
    )


def codes(source):
    return [finding.code for finding in check(read("source.py", Text((HEAD + source).encode())), RULES)]


BUILT = "self.drop = nn.Dropout(dropout)"
SIZED = "self.drop = nn.Dropout(p)\nself.fc = nn.Linear(dropout, 3)"
KEPT = "self.rate = dropout"
USED = "self.drop = nn.Dropout(dropout)\nself.rest = 1"
APPLY = "return self.drop(x)"

WRONG = {
    "config's rate": ("DRP202", layer("self.drop = nn.Dropout(config.p)\nself.q = dropout", "return x + self.q")),
    "layer of another library": ("DRP202", layer("self.drop = DropPath(dropout)")),
    "layer or nothing": ("DRP202", layer("self.drop = nn.Dropout(dropout) if dropout > 0 else nn.Identity()")),
    "rows of layers": ("DRP202", layer("self.drops = nn.ModuleList([nn.Dropout(dropout) for _ in range(3)])")),
    "rate kept for the record": ("DRP202", layer("self.p = dropout\nself.drop = nn.Dropout(dropout)")),
    "weights set in a walk": ("DRP202", layer(BUILT + "\nfor m in self.modules():\n    print(m)")),
    "zero unless given": ("DRP202", layer(SIZED, "return self.fc(x)", ", p=0.0", rest="net = Layer(3, 0.1)\n")),
    "another's attribute": ("DRP202", layer(BUILT, "return x + config.drop")),
    "keyword only": ("DRP203", layer(arguments="=0.1, *, attn_drop=0.1", constructor=USED, forward=APPLY)),
    "kept and not read": ("DRP203", layer(KEPT)),
    "among functions of the loop": (
        "DRP303",
        layer(
            USED,
            "out = 0\nfor f in self.drop.fs:\n    x = F.dropout(x, 0.5, self.training)\n    out += f(x)\nreturn out",
        ),
    ),
    "while": (
        "DRP303",
        layer(USED, "out = []\nwhile len(out) < 3:\n    x = self.drop(x)\n    out.append(x * 2)\nreturn out"),
    ),
    "layer of a base not seen": (
        "DRP303",
        "class Layer(Base):\n    def forward(self, x):\n        return [*self.run(x)]\n"
        "    def run(self, x):\n        for f in self.fs:\n            x = self.dropout(x)\n            yield f(x)\n",
    ),
    "two layers": (
        "DRP304",
        layer("self.a = nn.Dropout(dropout)\nself.b = nn.Dropout(0.2)", "x = self.a(x)\nx = self.b(x)\nreturn x"),
    ),
    "one in the other": ("DRP304", layer(USED, "return self.drop(F.dropout(x, 0.5, self.training))")),
}

RIGHT = {
    "still to be written": layer(BUILT, "# TODO: pretraining\nreturn x"),
    "always zero": layer(SIZED, "return self.fc(x)", ", p=0.0", rest="net = Layer(3)\n"),
    "subclass": layer(BUILT, rest="\nclass Heir(Layer):\n    def forward(self, x):\n        return self.drop(x)\n"),
    "base": "class Base(nn.Module):\n    def run(self, x):\n        return self.drop(x)\n\n"
    + layer(BUILT, base="Base"),
    "mix-in beside it": layer(BUILT)
    + "\nclass Mixin:\n    def run(self, x):\n        return self.drop(x)\n\nclass Both(Layer, Mixin):\n    pass\n",
    "holder": layer(BUILT, rest="\ndef run(model, x):\n    return model.inner.drop(x)\n"),
    "function over self": layer(BUILT, rest="\ndef forward(self, x):\n    return self.drop(x)\n"),
    "no forward": f"class Base(nn.Module):\n    def __init__(self):\n        super().__init__()\n        {BUILT}\n",
    "forward to be overridden": layer(BUILT, "raise NotImplementedError"),
    "Sequential": layer(BUILT, base="nn.Sequential"),
    "base of another file": layer(BUILT, "return super().forward(x)", base="models.Base"),
    "name made at run time": layer("self.drop0 = nn.Dropout(dropout)", "return getattr(self, 'drop{}'.format(0))(x)"),
    "name as a string": layer(BUILT, "return self.run('drop', x)"),
    "children": layer(BUILT, "for child in self.children():\n    x = child(x)\nreturn x"),
    "children by dictionary": layer(BUILT, "return self._modules[x](x)"),
    "object handed over": layer(BUILT, "return run(self, x)"),
    "commented out": layer(BUILT, "# x = self.drop(x)\nreturn x"),
    "comment says so": layer("self.drop = nn.Dropout(dropout)  # unused, kept for old checkpoints"),
    "deleted": layer(BUILT + "\ndel self.drop"),
    "alias": layer("self.drop = self.other = nn.Dropout(dropout)", "return self.other(x)"),
    "rate goes elsewhere": layer(
        BUILT + "\nself.attn = nn.MultiheadAttention(8, 2, dropout=dropout)", "return self.attn(x)"
    ),
    "config's rate goes elsewhere": layer(
        "self.drop = nn.Dropout(c.p)\nself.rnn = nn.LSTM(8, 8, 2, dropout=c.p)",
        "return self.rnn(x)",
        "=0, **dropout_options",
    ),
    "equal rate applied": layer(
        "self.a = nn.Dropout(0.1)\nself.b = nn.Dropout(0.1)\nprint(dropout)", "return self.b(x)"
    ),
    "not a Module": layer(KEPT, base="object"),
    "switch": layer(USED, APPLY, ", use_dropout=True, drop_last=0, dropout_type=None, with_drop=1"),
    "underscore": layer(USED, APPLY, ", _drop_rate=0.0"),
    "said in the signature": layer(USED, APPLY, ",\n        attn_drop=0.0,  # unused\n    "),
    "use commented out": layer(USED + "\n# self.attn_drop = nn.Dropout(attn_drop)", APPLY, ", attn_drop=0.0"),
    "docstring": layer('"""attn_drop: ignored, for compatibility."""\n' + USED, APPLY, ", attn_drop=0.0"),
    "swallows all": layer("self.a = 1", "return x", "=0.0, *args, **kwargs"),
    "all kept": layer("self.save_hyperparameters()\nself.inner = make(self.hparams)"),
    "locals": layer("self.options = locals()"),
    "base takes it too": "class Base(nn.Module):\n    def __init__(self, dropout):\n        super().__init__()\n"
    "        self.drop = nn.Dropout(dropout)\n    def forward(self, x):\n        return self.drop(x)\n\n"
    + layer("self.a = 1", base="Base"),
    "slot of a table": layer("self.a = 1")
    + layer(USED, APPLY).replace("Layer", "Other")
    + "\nKINDS = {'a': Layer, 'b': Other}\n",
    "stand-in": layer("self.a = 1").replace("Layer", "IdentityAttention"),
    "abstract": layer("self.a = 1", "raise NotImplementedError"),
    "read in print": layer("print(dropout)"),
    "new value every round": layer(USED, "for f in fs:\n    x = self.drop(x)\n    x = f(x)\nreturn x"),
    "value of the loop": layer(USED, "for x in x:\n    x = self.drop(x)\n    y = x + 1\nreturn y"),
    "changed in place": layer(USED, "for i in range(3):\n    x = self.drop(x)\n    x[0] = run(x)\nreturn x"),
    "one round only": layer(USED, "for f in fs:\n    x = self.drop(x)\n    y = f(x)\n    break\nreturn y"),
    "other name": layer(USED, "for f in fs:\n    y = self.drop(x)\n    z = f(y)\nreturn z"),
    "dropped behind the loop": layer(USED, "for f in fs:\n    y = f(x)\nelse:\n    x = self.drop(x)\nreturn x + y"),
    "branches": layer(USED, "if x:\n    x = self.drop(x)\nelse:\n    x = self.drop(x)\nreturn x"),
    "layer between": layer(USED, "x = self.drop(x)\nx = run(x)\nx = self.drop(x)\nreturn x"),
    "path behind": layer(USED + "\nself.path = DropPath(0.1)", "x = self.drop(x)\nx = self.path(x)\nreturn x"),
    "configured layer behind": layer(
        USED + "\nself.out = build(dropout)", "x = self.drop(x)\nx = self.out(x)\nreturn x"
    ),
    "elements, then channels": layer(USED, "x = self.drop(x)\nx = F.dropout2d(x, 0.1, self.training)\nreturn x"),
    "rate 0": layer(USED, "x = F.dropout(x, 0.0, self.training)\nx = self.drop(x)\nreturn x"),
    "two masks of one value": layer(USED, "a = self.drop(x)\nb = self.drop(x)\nreturn a + b"),
    "two masks in a row": "model = nn.Sequential(nn.Dropout(0.1), nn.ReLU(), nn.Dropout(0.1), nn.Dropout2d(0.1))\n",
}


@pytest.mark.parametrize(("code", "source"), WRONG.values(), ids=WRONG)
def test_a_misuse_is_found_once(code, source):
    assert codes(source) == [code]


@pytest.mark.parametrize("source", RIGHT.values(), ids=RIGHT)
def test_nothing_is_found_where_dropout_reaches_its_value_once(source):
    assert codes(source) == []


def test_a_finding_is_dropped_if_another_file_reads_the_attribute():
    """Only the other file can show that the layer is applied."""
    module = read("source.py", Text((HEAD + layer(BUILT)).encode()))

    [finding] = check(module, RULES)

    assert (finding.unless.owner, finding.unless.attribute) == ("Layer", "drop")
