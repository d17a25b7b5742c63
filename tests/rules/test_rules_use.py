"""Dropout used wrongly: results thrown away, rates that are none, layers in plain lists, no super().__init__()."""

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
CODES = ("DRP105", "DRP201", "DRP205", "DRP301", "DRP302", "DRP405")


def found(source):
    rules = [rule for rule in RULES if rule.code in CODES]
    return check(read("example.py", Text((HEAD + source).encode())), rules)


def net(forward="return x", init="pass", base="nn.Module"):
    """A Module with these statements in its two methods."""
    lines = ["super().__init__()", *init.split("\n")]
    return "\n".join(
        [
            f"class Net({base}):",
            "    def __init__(self, p=0.1, keep_prob=0.9, dropout=True):",
            *("        " + line for line in lines),
            "    def forward(self, x, flag=None):",
            *("        " + line for line in forward.split("\n")),
        ]
    )


def held(init, rest=""):
    """A Module that holds `Block`s with dropout in a container."""
    return "\n".join([net(init="self.drop = nn.Dropout()").replace("Net", "Block"), net(init=init), rest])


def init(body, base="nn.Module", rest="", decorator=""):
    """A Module whose constructor does only this."""
    lines = ("        " + line for line in body.split("\n"))
    return "\n".join([rest, f"class Net({base}):", decorator, "    def __init__(self, a=1):", *lines])


WRONG = {
    "DRP201": [
        net("F.dropout2d(x, 0.1, self.training)\nreturn x"),
        net("F.dropout(x, 0.1, self.training, False)\nreturn x"),
        net("nn.Dropout(0.1)(x)\nreturn x"),
        net("self.drop(x)\nreturn x", "self.drop = nn.Dropout(p) if p > 0 else nn.Identity()"),
        net("drop = nn.Dropout(0.1)\ndrop(x)\nreturn x"),
        net("if flag:\n    self.drop(x.relu())\nreturn x", "self.drop = nn.Dropout(p)"),
        "from timm.layers import DropPath\n" + net("self.drop(x)\nreturn x", "self.drop = DropPath(p)"),
    ],
    "DRP205": [
        net("return F.alpha_dropout(x)"),
        net("x = F.selu(x)\nreturn F.feature_alpha_dropout(x, p=0.2, inplace=True)"),
        "from torch.nn.functional import alpha_dropout\n" + net("return alpha_dropout(x, 0.1)"),
    ],
    "DRP301": [
        net("return F.dropout(x, p=self.training, inplace=True)"),
        net("return F.dropout(x, self.training, 0.5)"),
        net("return F.dropout(x, training, self.training)"),
        net("return F.dropout(x, not self.training)"),
        net("return F.scaled_dot_product_attention(x, x, x, dropout_p=self.training)"),
        net(init="self.drop = nn.Dropout(True)"),
        net(init="self.drop = nn.Dropout(1)"),
        net(init="self.drop = nn.Dropout2d(p=50)"),
        net(init="self.drop = nn.Dropout(-0.1)"),
        net(init="self.rnn = nn.LSTM(1, 1, 2, dropout=True)"),
        net(init="self.drop = nn.Dropout(dropout)"),
        net(init="if dropout:\n    self.drop = nn.Dropout(dropout)"),
        "def block(drop: bool = False):\n    return nn.Dropout(drop)",
        "def block(drop=False):\n    return nn.Dropout(drop)\nblock(drop=True)",
    ],
    "DRP302": [
        net(init="self.drop = nn.Dropout(keep_prob)"),
        net("return F.dropout(x, self.keep_prob, self.training)", "self.keep_prob = keep_prob"),
        net("return F.dropout(x, self.keep, self.training)", "self.keep = 1 - p"),
        net(init="p = keep_prob\nself.drop = nn.Dropout(p)"),
        net(init="self.p = keep_prob\nself.drop = nn.Dropout(self.p)"),
        net(init="self.dropout = flag.keep_prob\nself.rnn = nn.LSTM(1, 1, 2, dropout=self.dropout)"),
        net("return F.dropout(x, self.rate, self.training)", "self.rate = flag['keep_prob']"),
        'def drop(config):\n    return nn.Dropout(config["keep_prob"])',
        "def drop(options):\n    return nn.Dropout(options.survival_prob)",
        "def rnn(dropout_keep_prob):\n    return nn.GRU(1, 1, 2, dropout=dropout_keep_prob)",
    ],
    "DRP105": [
        held("self.blocks = [Block(), Block()]"),
        held("self.blocks = tuple(Block() for _ in range(2))"),
        held('self.blocks = {"a": Block(), "b": Block()}'),
        held("self.blocks = [Block()] + [Block() for _ in range(2)]"),
        held("self.blocks = [nn.Dropout(p)] * 2"),
        held("self.blocks = []\nfor _ in range(2):\n    self.blocks.append(Block())"),
        held("self.blocks = []\nfor _ in range(2):\n    block = Block()\n    self.blocks.append(block)"),
        held('self.blocks = {}\nself.blocks["a"] = Block().to("cpu")'),
        held("blocks = []\nfor _ in range(2):\n    blocks.append(Block())\nself.blocks = blocks"),
        held("self.blocks = [nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)) for _ in range(2)]"),
        held("self.blocks = [Deep() for _ in range(2)]", net(init="self.inner = Block()").replace("Net", "Deep")),
    ],
    "DRP405": [
        init("self.fc = nn.Linear(1, 1)"),
        init("self.weight = nn.Parameter(torch.ones(1))", "torch.nn.Module"),
        init("self.fc = nn.Linear(1, 1)", "Base", rest=net().replace("Net", "Base")),
        init("self.base = Base()", rest=net().replace("Net", "Base")),
        init("self.reset()\nself.fc = nn.Linear(1, 1)") + "\n    def reset(self):\n        pass",
        init("super().__init__\nself.fc = nn.Linear(1, 1)"),
        init("self.fc = nn.Linear(1, 1)", decorator="    size = 3"),
    ],
}
RIGHT = [
    # In place, other functions, other objects of such a name, tests.
    net("F.dropout(x, 0.1, self.training, True)\nreturn x"),
    net("F.dropout(x, 0.1, self.training, inplace=flag)\nreturn x"),
    net("self.drop(x)\nreturn x", "self.drop = nn.Dropout(p, inplace=True)"),
    net("self.drop(x)\nreturn x", "self.drop = nn.Dropout(p)\nself.drop.inplace = True"),
    net("self.drop(x)\nreturn x", "self.drop = nn.Dropout(p, True) if p > 0.2 else nn.Dropout(p)"),
    net("self._init_drop(x)\nreturn x"),
    net("self.drop(x)\nreturn x", "self.drop = make_dropout(p)"),
    net("y = F.dropout(x, 0.1, self.training)\nreturn y"),
    net("return F.alpha_dropout(x, 0.1, self.training)"),
    net("return F.alpha_dropout(x, 0.1, training=flag)"),
    net("return F.feature_alpha_dropout(x, **flag)"),
    "import chainer.functional as G\ndef f(x):\n    G.dropout(x)\n    return x",
    "def test_rate(x):\n    F.dropout(x, 0.1)\n    F.dropout(x, 1.0)",
    "def f(x, pytest):\n    with pytest.raises(ValueError):\n        F.dropout(x, 1.5)",
    "def f(self, x):\n    self.assertRaises(ValueError, lambda: F.dropout(x, -1))",
    "def f(expect, x):\n    expect(ValueError, lambda: F.dropout(x, -1))",
    # Rates.
    net("return F.dropout(x, 0.0, self.training)"),
    net("return F.dropout(x, self.p if self.training else 0.0)"),
    net("return F.dropout(x, self.training and p)"),
    net("return F.scaled_dot_product_attention(x, x, x, None, self.p)"),
    "from tensorflow.keras import layers\nlayer = layers.Dropout(True)",
    "def block(dropout=False):\n    return nn.Dropout(dropout) if dropout else None",
    "def block(dropout=True):\n    if dropout is True:\n        dropout = 0.5\n    return nn.Dropout(dropout)",
    "def block(dropout=True):\n    return nn.Dropout(0.5 if dropout is True else dropout)",
    "def block(use_dropout):\n    return nn.Dropout(use_dropout)",
    # Keep.
    net(init="self.drop = nn.Dropout(1 - keep_prob)"),
    net(init="self.drop = nn.Dropout(p=1.0 - keep_prob)"),
    net(init="keep = 1 - keep_prob\nself.drop = nn.Dropout(keep)"),
    net(init="self.keep_prob = 1 - keep_prob\nself.drop = nn.Dropout(self.keep_prob)"),
    net(init="keep_prob = p\nkeep_prob = drop_rate\nself.drop = nn.Dropout(keep_prob)"),
    "def drop(keep_prob=0.1):\n    return nn.Dropout(keep_prob)",
    "parser.add_argument('--keep-prob', default=0.1)\ndrop = nn.Dropout(parser.parse_args().keep_prob)",
    "def drop(config, keep_dim):\n    return nn.Dropout(keep_dim)",
    "import mindspore.nn as msn\ndef drop(keep_prob):\n    return msn.Dropout(keep_prob)",
    # Containers: registered later or by hand, of other kinds, held on purpose.
    held("self.blocks = nn.ModuleList([Block()])"),
    held("self.blocks = [Block(), Block()]\nself.all = nn.ModuleList(self.blocks)"),
    held("self.blocks = [Block(), Block()]\nself.all = nn.Sequential(*self.blocks)"),
    held("self.blocks = [Block(), Block()]\nself.blocks = nn.ModuleList(self.blocks)"),
    held("self.blocks = [Block(), Block()]\nfor i, b in enumerate(self.blocks):\n    self.add_module(str(i), b)"),
    held("self.blocks = [Block(), Block()]\nfor i, b in enumerate(self.blocks):\n    setattr(self, str(i), b)"),
    held("self.blocks = []\nfor i in range(2):\n    b = Block()\n    self.blocks.append(b)\n    self.net.append(b)"),
    held("blocks = [Block(), Block()]\nself.blocks = blocks\nself.all = nn.Sequential(*blocks)"),
    held("blocks = []\nblocks.append(Block())\nself.blocks = nn.Sequential(*blocks)"),
    held("self.first = Block()\nself.blocks = [self.first, self.first]"),
    held("self.first = first = Block()\nself.blocks = [first, first]"),
    held("self.teacher = [Block()]"),
    held("self.inner = (Block(),)"),
    held("self.blocks = [Block(), Block()]  # not registered on purpose"),
    held("self.blocks = [Block, Block]"),
    held("self.blocks = [nn.Linear(1, 1) for _ in range(2)]"),
    held("self.blocks = [Block(), Block()]").replace("class Net(nn.Module)", "class Trainer"),
    "import speechbrain as sb\n" + held("self.blocks = sb.nnet.containers.Sequential()\nself.blocks.append(Block())"),
    held(
        "self.blocks = [Block(), Block()]", "    def train(self, mode=True):\n        [b.train() for b in self.blocks]"
    ),
    # super().__init__() in other words, or by others.
    init("super().__init__()\nself.fc = nn.Linear(1, 1)"),
    init("super(Net, self).__init__()\nself.fc = nn.Linear(1, 1)"),
    init("nn.Module.__init__(self)\nself.fc = nn.Linear(1, 1)"),
    init("Base.__init__(self)\nself.fc = nn.Linear(1, 1)", "Base", rest=net().replace("Net", "Base")),
    init("self.start()\nself.fc = nn.Linear(1, 1)") + "\n    def start(self):\n        super().__init__()",
    init("self.fc = nn.Linear(1, 1)") + "\n    def __new__(cls):\n        return make(cls)",
    init("self.fc = nn.Linear(1, 1)", "nn.Module, metaclass=Meta"),
    init("self.fc = nn.Linear(1, 1)", "Unknown"),
    init("self.fc = nn.Linear(1, 1)", "nn.Module, Unknown"),
    init("self.fc = nn.Linear(1, 1)", "Module", rest="from fastai.vision.all import *"),
    init("self.fc = nn.Linear(1, 1)", "Module", rest="from torch.nn import Module"),
    init("self.fc = nn.Linear(1, 1)", decorator="    @store_attributes"),
    init("self.__dict__.update(a.__dict__)\nself.fc = nn.Linear(1, 1)"),
    init("self.size = 3"),
    init("self.fc = nn.Linear(1, 1)", "object"),
    init("self.fc = nn.Linear(1, 1)")
    + "\nclass Heir(Net):\n    def __init__(self):\n        nn.Module.__init__(self)\n        Net.__init__(self)",
]


@pytest.mark.parametrize(("code", "source"), [(code, source) for code, sources in WRONG.items() for source in sources])
def test_a_misuse_is_found_once(code, source):
    """Each of these holds one misuse, of one kind."""
    assert [finding.code for finding in found(source)] == [code]


@pytest.mark.parametrize("source", RIGHT)
def test_what_is_right_or_may_be_is_left_alone(source):
    """Correct code, and code that other parts may make correct, has no finding."""
    assert found(source) == []


def test_a_high_rate_is_information_only():
    """Some published models drop nine tenths: the finding is shown on request only."""
    assert [finding.severity.value for finding in found("drop = nn.Dropout(0.9)")] == ["info"]


@pytest.mark.parametrize(
    "source",
    [
        net("self.drop(x.relu())\nreturn x", "self.drop = nn.Dropout(p)"),
        net("self.drop(x)\nreturn 0", "self.drop = nn.Dropout(p)"),
        net("return F.dropout(x, self.training, 0.5)"),
        net(init="self.drop = nn.Dropout(True)"),
        held("self.blocks = (Block(), Block())"),
        held("self.blocks = [Block(), 3]"),
        init("self.fc = nn.Linear(1, 1)", "Base", rest=net().replace("Net", "Base").replace("p=0.1", "p, q=1")),
        "class Net(nn.Module):\n    def __init__(self): self.fc = nn.Linear(1, 1)",
    ],
)
def test_no_fix_is_offered_where_none_is_plain(source):
    """A fix that would be incomplete is not offered."""
    assert [finding.fix for finding in found(source)] == [None]
