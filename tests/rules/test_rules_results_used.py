"""DRP110 is a warning where the file uses what the method returns, which is None; else it is a remark."""

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

TRAIN = "    def train(self, mode=True):\n        super().train(mode)\n        self.norm.eval()\n"
EVAL = "    def eval(self):\n        super().eval()\n        self.ready = True\n"


def severities(method, use):
    source = (
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.1)\n"
        f"    def forward(self, x):\n        return self.drop(self.norm(x))\n{method}{use}\n"
    )
    findings = check(read("net.py", Text(source.encode())), RULES)
    return [finding.severity.value for finding in findings if finding.code == "DRP110"]


USED = [
    "model = Net().eval()",
    "model = Net().to('cuda').eval()",
    "def load():\n    return Net().eval()",
    "def load(path):\n    net = Net()\n    net.load_state_dict(torch.load(path))\n    return net.eval()",
    "net = Net()\nnet = net.eval()\nprint(net)",
    "def make():\n    return Net()\nprint(make().eval()(torch.ones(2, 8)))",
]


@pytest.mark.parametrize("use", USED)
@pytest.mark.parametrize("method", [TRAIN, EVAL], ids=["train", "eval"])
def test_a_result_that_is_used_is_a_warning(method, use):
    """Module's `eval()` returns what `train()` does."""
    assert severities(method, use) == ["warning"]


@pytest.mark.parametrize(
    "use",
    [
        "model = Net()\nmodel.eval()",
        "model = nn.Sequential(Net()).eval()",
        "def load(model):\n    return model.eval()",
        "class Other(nn.Linear):\n    pass\nmodel = Other(1, 1).eval()",
    ],
)
def test_a_result_that_nothing_uses_is_a_remark(use):
    assert severities(TRAIN, use) == ["info"]


def test_train_is_not_what_eval_returns():
    assert severities(EVAL, "model = Net().train()") == ["info"]
