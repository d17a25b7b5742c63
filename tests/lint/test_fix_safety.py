"""Safe fixes on programs made to mislead them: what would break, or mean something else, is left as it is."""

import ast

import pytest

from dropkit.lint.engine.check_file import check, check_bytes
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.fixing import fix_bytes
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n\n"
NET = (
    "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.1)\n\n    "
)


def found(source, code=None):
    findings = check(read("example.py", Text(source.encode())), RULES)
    return [finding for finding in findings if code in (None, finding.code)]


def fixed(source, unsafe=False):
    findings = check_bytes("example.py", source.encode(), Config()).findings
    return fix_bytes(source.encode(), findings, Config(), unsafe)[0].decode() if findings else source


def net(method):
    return HEAD + NET + method.replace("\n", "\n    ") + "\n"


# Trainings and evaluations under the names of Module's methods.
PROCEDURES = {
    "loader and epochs": "def train(self, train_loader, epochs):\n    for x in train_loader:\n        self(x)",
    "loader": "def train(self, loader):\n    self.norm.eval()",
    "training data": "def train(self, training_data):\n    self.norm.eval()",
    "x and y": "def train(self, x, y):\n    self.norm.eval()",
    "epochs by name": "def train(self, *, epochs):\n    self.norm.eval()",
    "mode, and epochs by name": "def train(self, mode=True, *, epochs):\n    self.norm.eval()",
    "number of steps": "def train(self, num_steps=1000):\n    super().train()\n    self.norm.eval()",
    "train steps": "def train(self, train_steps=1000):\n    self.norm.eval()",
    "a model": "def train(self, model):\n    self.norm.eval()",
    "loader that may be left out": "def eval(self, loader=None):\n    self.train(False)\n    self.loss = loader",
    "eval of a loader": "def eval(self, loader):\n    self.train(False)",
    "eval of x": "def eval(self, x, y):\n    self.train(False)",
    "generator": "def train(self, mode=True):\n    super().train(mode)\n    yield 1",
    "async": "async def train(self, mode=True):\n    super().train(mode)",
    "a loss": "def train(self, mode=True):\n    super().train(mode)\n    if mode:\n        return self.loss\n",
    "history": "def train(self, mode=True) -> dict:\n    super().train(mode)\n    self.norm.eval()",
    "backward": "def train(self, mode=True):\n    super().train(mode)\n    self.loss.backward()",
    "loop over data": "def train(self, mode=True):\n    for x in self.data:\n        self(x)",
    "no arguments": "def train(self):\n    for x in self.data:\n        self(x)",
    "an optimizer": "def train(self, training=True):\n    opt = SGD(self.parameters())\n    run_epoch(self, opt)",
    "epochs beside the mode": "def train(self, mode: bool = True, epochs=5):\n    self.trainer.run(max_epochs=epochs)",
    "epochs passed by": "def train(self, mode=True, *, epochs=5):\n    super().train(mode)\n    self.norm.eval()",
    "resume": "def train(self, resume: bool = False):\n    if resume:\n        self.load()\n    self.run_training()",
    "verbose": "def eval(self, verbose: bool = False):\n    self.norm.eval()\n    print(self.accuracy(self.data))",
    "metrics": "def eval(self, is_train=False):\n    super().eval()\n    metrics = self.validate(self.loader)\n"
    "    self.metrics.append(metrics)",
    "metrics kept": "def train(self, mode=True):\n    self.history = self.go(self.data)",
    "manual backward": "def train(self, mode=True):\n    super().train(mode)\n    loss = self.criterion(self.x)\n"
    "    self.manual_backward(loss)",
    "arguments of a loop": "def train(self, *args):\n    super().train()\n    self.loop(*args)",
    "a trainer's train": "def train(self, mode=True):\n    self.trainer.train()",
    "datasets": "def train(self, *datasets):\n    self.norm.eval()",
}
OVERRIDES = {
    "mode": "def train(self, mode=True):\n    super().train(mode)\n    self.norm.eval()",
    "mode: bool": "def train(self, mode: bool = True):\n    super().train(mode)\n    self.norm.eval()",
    "mode without default": "def train(self, mode):\n    super().train(mode)\n    self.norm.eval()",
    "is_training": "def train(self, is_training=True):\n    super().train(is_training)\n    self.norm.eval()",
    "any name, a bool": "def train(self, on=True):\n    super().train(on)\n    self.norm.eval()",
    "everything": "def train(self, *args, **kwargs):\n    super().train(*args, **kwargs)\n    self.norm.eval()",
    "nothing, passed on": "def train(self):\n    super().train()\n    self.norm.eval()",
    "torch's by name": "def train(self, mode=True):\n    nn.Module.train(self, mode)\n    self.norm.eval()",
    "loop over layers": "def train(self, mode=True):\n    for one in self.children():\n        one.train(mode)",
    "eval": "def eval(self):\n    super().eval()\n    self.norm.train()",
    "frozen stages": 'def train(self, mode=True, freeze=False):\n    """Keep it."""\n    super().train(mode)\n'
    "    self._freeze_stages()\n    self.epoch_mode = bool(mode)\n    if mode and self.norm_eval:\n"
    "        for one in self.modules():\n            if isinstance(one, nn.BatchNorm1d):\n                one.eval()",
    "gradients": "def train(self, mode=True):\n    super().train(mode)\n    for one in self.parameters():\n"
    "        one.requires_grad_(mode)\n        one.requires_grad = mode\n    self.norm.set_training_mode(mode)",
}
# Overrides that do more: what they are called for is not plain.
MORE = {
    "a hook": "def train(self, mode=True):\n    super().train(mode)\n    self.on_mode(mode)",
    "a value that is worked out": "def eval(self):\n    super().eval()\n    self.weight = self.fold(self.norm)",
    "a condition that does something": "def train(self, mode=True):\n    super().train(mode)\n    if self.go():\n"
    "        self.norm.eval()",
    "a context": "def eval(self):\n    super().eval()\n    with torch.no_grad():\n        self.norm.eval()",
    "another's train": "def train(self, mode=True):\n    super().train(mode)\n    self.policy.train(self.data)",
}


@pytest.mark.parametrize("method", PROCEDURES.values(), ids=PROCEDURES)
def test_a_training_procedure_is_no_override(method):
    """It is neither reported nor fixed."""
    source = net(method)

    assert found(source, "DRP110") == []
    assert "return self\n" not in fixed(source, unsafe=True)


@pytest.mark.parametrize("method", OVERRIDES.values(), ids=OVERRIDES)
def test_an_override_is_fixed_to_return_self(method):
    source = net(method)

    assert [finding.message for finding in found(source, "DRP110")] == [
        f"{method[4:].split('(')[0]}() does not return self"
    ]
    assert fixed(source).endswith("        return self\n")


@pytest.mark.parametrize("method", MORE.values(), ids=MORE)
def test_a_method_that_does_more_than_switch_has_an_unsafe_fix_only(method):
    """It is found, and only an unsafe fix makes it return self."""
    source = net(method)

    assert len(found(source, "DRP110")) == 1
    assert fixed(source) == source
    assert fixed(source, unsafe=True).endswith("return self\n")


# Code that a naive fix would break or change, and a condition that the fixed code must not fulfil.
LEFT = {
    "self of a closure": net(
        "def forward(self, x):\n    def inner(self):\n        return F.dropout(x, 0.5)\n    return inner(3)"
    ),
    "self bound anew": net("def forward(self, x):\n    self = x\n    return F.dropout(x, 0.5)"),
    "self of a lambda": net("def forward(self, x):\n    return (lambda self: F.dropout(x, 0.5))(3)"),
    "a base known by its name only": HEAD + "from .base import BaseModel\n\n\nclass Net(BaseModel):\n"
    "    def forward(self, x):\n        return F.dropout(x, 0.5)\n",
    "attention in such a class": HEAD + "from .base import BaseModel\n\n\nclass Net(BaseModel):\n"
    "    def forward(self, x):\n        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)\n",
    "a property called train": net(
        "@property\ndef train(self):\n    return self.training\n\ndef forward(self, x):\n"
        "    return F.dropout(x, 0.5, self.train)"
    ),
    "functional imported for types": "import typing\nfrom torch.nn import Dropout, Module\n\nif typing.TYPE_CHECKING:\n"
    "    import torch.nn.functional as F\n\n\nclass Net(Module):\n    def forward(self, x):\n"
    "        return Dropout(0.5)(x)\n",
    "bound on the way": net("def forward(self, x):\n    return nn.Dropout(p := 0.5)(x * (p := 2.0))"),
    "a frame's eval": HEAD + "import pandas as pd\n\n\ndef run(frame):\n    frame.eval\n",
    "another train": HEAD + NET + "def train(self, loader):\n        self(loader)\n\n\nmodel = Net()\n"
    "model.training = False\nmodel.eval\n",
    "a method that assigns to itself": HEAD + NET + "def train(self, loader):\n        self(loader)\n\n"
    "    def forward(self, x):\n        self.training = False\n        return self.drop(x)\n",
    "nothing but in place": net(
        "def forward(self, x):\n    x = torch.relu(x)\n    F.dropout(x, 0.5, self.training, inplace=True)\n    return x"
    ),
    "a layer used in place elsewhere": HEAD + "class Net(nn.Module):\n    def __init__(self):\n"
    "        super().__init__()\n        self.drop = nn.Dropout(0.1, inplace=True)\n\n    def forward(self, x):\n"
    "        y = self.drop(torch.relu(x))\n        self.drop(x)\n        return x + y\n",
    "a mixin of another library": HEAD + "class Agent(Base):\n    def train(self, mode=True):\n"
    "        super().train(mode)\n        self.count = 0\n",
}  # fmt: skip


@pytest.mark.parametrize("source", LEFT.values(), ids=LEFT)
def test_safe_fixes_leave_what_they_would_break(source):
    assert fixed(source) == source


def test_an_argument_by_position_is_not_taken_from_before_others():
    """The arguments after it would move to its position."""
    source = HEAD + "from torchvision.ops import drop_block2d\n\n\n" + NET + (
        "def forward(self, x):\n        y = torch.relu(x)\n"
        "        return drop_block2d(y, 0.5, 3, True, 1e-06, self.training)\n"
    )  # fmt: skip

    assert fixed(source) == source


@pytest.mark.parametrize("line", [
    "x = F.dropout(x, 0.5)", "x = F.dropout(x, p=0.5,)",
    "x = F.dropout(\n            x,  # the input\n            0.5\n        )",
    "x = F.dropout((x), (0.5))", "x = F.dropout(x)", "F.dropout(x, 0.5); x = x + 1", "x = [F.dropout(y) for y in x]",
    "x = F.scaled_dot_product_attention(x, x, x, None, 0.5)", "x = nn.Dropout(0.5)(F.dropout(x, 0.5))",
    "x = F.alpha_dropout(F.selu(x), 0.1)", "x = F.dropout(x, self.training)", "x = (nn.Dropout)(0.5)(x)",
])  # fmt: skip
def test_fixed_code_compiles_and_needs_no_second_fix(line):
    """A second run has nothing more to fix."""
    after = fixed(net(f"def forward(self, x):\n    {line}\n    return x"))

    ast.parse(after)
    assert fixed(after) == after
    assert "training" in after


BESIDE_TRUE = [
    "y = F.dropout(x, 0.5, True)\n        return F.dropout(y + 1, 0.5)",
    "return F.dropout(F.dropout(x, 0.5) + 1, 0.5, training=True)",
    "return F.dropout(x, 0.5), F.dropout(x, 0.5, True), F.dropout(x, 0.5, True)",
    "y = F.dropout(x, 0.5, self.train)\n        return F.dropout(y + 1, 0.5, True)",
]


@pytest.mark.parametrize("body", BESIDE_TRUE)
def test_a_fix_may_show_another_misuse_and_both_are_fixed_at_once(body):
    """Once a call follows the mode, a literal True beside it does not: no fix is offered that is never applied."""
    head = "import torch.nn.functional as F\nfrom torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n"
    data, config = f"{head}        {body}\n".encode(), Config()

    data, fixed = fix_bytes(data, check_bytes("net.py", data, config).findings, config, unsafe=False)

    assert {finding.code for finding in fixed} == {"DRP101"}
    assert b"True" not in data
    assert check_bytes("net.py", data, config).findings == ()
