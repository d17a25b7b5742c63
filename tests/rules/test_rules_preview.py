"""Rules of preview and of severity info: what else they find, and what they leave alone."""

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.diagnostics import Severity
from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

CODES = ("DRP107", "DRP108", "DRP406", "DRP407", "DRP408", "DRP409")
HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"


def found(source):
    module = read("example.py", Text((HEAD + source).encode()))
    return [one.code for one in check(module, [rule for rule in RULES if rule.code in CODES])]


def model(init, forward, name="Net", arguments="self, x"):
    """A class with these statements in its constructor and its forward."""
    init, forward = ("".join(f"\n        {line}" for line in part.strip().split("\n")) for part in (init, forward))
    return f"""
class {name}(nn.Module):
    def __init__(self, p, num_classes, n):
        super().__init__(){init}

    def forward({arguments}):{forward}
"""


LAYERS = """self.drop = nn.Dropout(p)
self.fc = nn.Linear(8, num_classes)
self.hidden = nn.Linear(8, 8)
self.norm = nn.BatchNorm1d(8)
self.conv = nn.Conv2d(8, 8, 3)
self.p = p"""

SCRIPT = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = {layer}

    def forward(self, x):
        return self.norm(self.conv(x))


def train(model, loader):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


{test}


def main(loader, {argument}):
    net = Net().to("cpu")
    net = nn.DataParallel(net)
    {before}
    train(net, loader)
    return test({given})
"""
TEST = """def test(net, loader):
    correct = 0
    with torch.no_grad():
        for x, y in loader:
            {run}
    return correct"""
RUN = "correct += (net(x).argmax(1) == y).sum()"
DECORATED = """@torch.inference_mode()
def test(net, loader):
    correct = 0
    for x, y in loader:
        correct += (net(x).argmax(1) == y).sum()
    return correct"""


def script(layer="nn.BatchNorm2d(8)", run=RUN, test=TEST, argument="device", before="net.train()", given="net, loader"):
    return SCRIPT.format(layer=layer, test=test.format(run=run), argument=argument, before=before, given=given)


BAD = {
    "batch norm, through parameters and wrappers": ("DRP107", script()),
    "decorated function": ("DRP107", script(test=DECORATED)),
    "functional dropout": ("DRP107", script(layer="nn.Dropout2d(0.1)")),
    "model held by a trainer": (
        "DRP107",
        """
class Trainer:
    def __init__(self):
        self.net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)

    def step(self, x, y):
        F.cross_entropy(self.net(x), y).backward()
        self.optimizer.step()

    def test(self, x, y):
        with torch.no_grad():
            test_loss = F.cross_entropy(self.net(x), y)
        return test_loss
""",
    ),
    "bernoulli_ on new": (
        "DRP108",
        model(LAYERS, "mask = x.new().resize_((x.size(1), 1)).bernoulli_(1 - self.p).expand_as(x) / (1 - self.p)\n"
              "return mask * x", "EmbeddingDropout"),
    ),
    "torch.bernoulli in a helper": ("DRP108", model(LAYERS, "return self.drop_rows(x)") + """
    def drop_rows(self, x):
        return x.masked_fill(torch.bernoulli(torch.full(x.shape, self.p)).bool(), 0)
"""),
    "rand, added and floored": (
        "DRP108",
        model(LAYERS, "keep = 1 - self.p\ncoins = keep + torch.rand(x.shape[0], 1)\ncoins.floor_()\n"
              "return x.div(keep) * coins", "DropPath"),
    ),
    "rand_like in where": (
        "DRP108", model(LAYERS, "return torch.where(torch.rand_like(x) < self.p, torch.zeros_like(x), x)", "TokenDrop"),
    ),
    "scaled by 1/(1-p), whatever the names": (
        "DRP108",
        model(LAYERS, "m = torch.empty_like(x).bernoulli_(1 - self.p)\nreturn x * m / (1 - self.p)", "Regularizer"),
    ),
    "set to zero by index": (
        "DRP108",
        model(LAYERS, "dropped = torch.rand_like(x) < self.p\nx[dropped] = 0\nreturn x"),
    ),
    "function that only Modules call": (
        "DRP108",
        "def drop_rows(x, p):\n    keep = torch.rand(x.shape[0], 1) >= p\n    return x * keep / (1 - p)\n"
        + model(LAYERS, "return drop_rows(x, self.p)"),
    ),
    "distribution": (
        "DRP108",
        model(LAYERS, "keep = torch.distributions.Bernoulli(1 - self.p).sample(x.shape)\nx *= keep\nreturn x"),
    ),
    "logits, a line later": ("DRP406", model(LAYERS, "x = self.fc(x)\nif p:\n    x = self.drop(x)\nreturn x")),
    "before log_softmax": ("DRP406", model(LAYERS, "return F.log_softmax(self.drop(self.hidden(x)), dim=1)")),
    "before a loss": (
        "DRP406",
        model(LAYERS, "x = F.dropout(self.hidden(x), 0.1, self.training)\nreturn F.cross_entropy(x, y)",
              arguments="self, x, y"),
    ),
    "small classifier": (
        "DRP406",
        model("self.drop = nn.Dropout(p)\nself.classifier = nn.Linear(768, 3)",
              "logits = self.drop(self.classifier(x))\nreturn logits, x"),
    ),
    "head in a row": ("DRP406", "head = nn.Sequential(nn.Linear(8, num_classes), nn.Dropout(0.2))\n"),
    "head in a starred row": ("DRP406", "head = nn.Sequential(*[nn.Linear(8, len(classes)), nn.Dropout(0.2)])\n"),
    "head that ends in log-softmax": (
        "DRP406", "head = nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.2), nn.LogSoftmax(-1))\n"
    ),
    "batch norm in a row": ("DRP407", "row = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.BatchNorm1d(8))\n"),
    "batch norm a line later": ("DRP407", model(LAYERS, "x = self.drop(self.hidden(x))\nreturn self.norm(x)")),
    "GELU, appended": (
        "DRP408", "layers = [nn.Linear(8, 8)]\nlayers.append(nn.Dropout(0.2))\nlayers.append(nn.GELU())\n",
    ),
    "ReLU, where the order changes nothing": ("DRP408", "row = nn.Sequential(nn.Dropout(0.1), nn.ReLU())\n"),
    "function of an activation": ("DRP408", model(LAYERS, "return F.gelu(self.drop(self.hidden(x)))")),
    "method, a line later": ("DRP408", model(LAYERS, "x = self.drop(self.hidden(x))\nreturn x.tanh()")),
    "map behind norm and activation": ("DRP409", model(LAYERS, "x = self.drop(F.relu(self.norm(self.conv(x))))\n"
                                                       "return self.conv(x)")),
    "map in a row": (
        "DRP409",
        "row = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1))\n",
    ),
    "convolution, called": ("DRP409", model(LAYERS, "x = self.conv(x)\nreturn F.dropout(x, 0.1, self.training)")),
}  # fmt: skip

CLEAN = {
    # DRP107
    "eval elsewhere in the file": script(before="net.eval()"),
    "train(False)": script(before="net.train(False)"),
    "training assigned": script(before="net.training = False"),
    "a context manager switches": script(run="with evaluating(net): " + RUN),
    "no layer that depends on the mode": script(layer="nn.LayerNorm(8)"),
    "nothing measured": script(run="save(net(x))").replace("test(", "export("),
    "no forward": script(run="correct += y.sum()"),
    "model from elsewhere": script(argument="other", given="other, loader"),
    "no training": script().replace(".backward()", ""),
    "target network": script(before="target = Net()", given="target, loader"),
    # DRP108
    "training asked": model(
        LAYERS, "if not self.training:\n    return x\nreturn x * torch.bernoulli(torch.full_like(x, 0.9))", "Drop"
    ),
    "scaled in evaluation": model(
        LAYERS,
        "if self.training:\n    return x * torch.bernoulli(torch.full_like(x, 1 - self.p))\nreturn x * (1 - self.p)",
        "Drop",
    ),
    "flag passed": model(
        LAYERS, "return x * (torch.rand_like(x) > self.p) if train else x", "Drop", "self, x, train"
    ),
    "holder asks": model(LAYERS, "return x * (torch.rand_like(x) > self.p)", "WordDrop")
    + model("self.words = WordDrop(p, 1, 1)", "if self.training:\n    x = self.words(x)\nreturn x", "Holder"),
    "noise, not zeros": model(LAYERS, "drop = torch.rand_like(x)\nreturn x * drop"),
    "layer drop decides in Python": model(LAYERS, "drop = torch.rand([])\nreturn x if drop < self.p else x * 2"),
    "marked": model(LAYERS, "keep = torch.rand_like(x) > self.p  # dropkit: always-on\nreturn x * keep"),
    "function with a flag": "def drop_rows(x, p, training):\n    keep = torch.rand(x.shape[0], 1) >= p\n"
    "    return x * keep if training else x\n" + model(LAYERS, "return drop_rows(x, self.p, self.training)"),
    "function that others call": "def drop_rows(x, p):\n    return x * (torch.rand(x.shape[0], 1) >= p)\n"
    "drop_rows(1, 2)\n" + model(LAYERS, "return drop_rows(x, self.p)"),
    "no Module": "class Drop:\n    def apply(self, x):\n        return x * (torch.rand_like(x) > 0.5)\n",
    # DRP406
    "hidden layer dropped": model(LAYERS, "return self.fc(self.drop(self.hidden(x)))"),
    "block with a residual": model(LAYERS, "return x + self.drop(self.fc(x))"),
    "transformer sub-block": "block = nn.Sequential(nn.Linear(8, dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(dim, 8), "
    "nn.Dropout(0.1))\n",
    "output of a sub-block": model(LAYERS, "return self.drop(self.hidden(x))"),
    "loop guard": model(
        LAYERS, "for i in range(n):\n    x = self.fc(x)\n    if i != n - 1:\n        x = self.drop(x)\nreturn x"
    ),
    "fed to another layer": model(LAYERS, "x = self.drop(self.fc(x))\nreturn self.hidden(x)"),
    "attention weights": model(
        LAYERS, "attention = torch.softmax(self.drop(self.fc(x)), -1)\nreturn attention @ x"
    ),
    "softmax, then dropout": "scores = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Dropout(0.1))\n",
    "part of a longer row": "net = nn.Sequential(nn.Sequential(nn.Linear(8, n_classes), nn.Dropout(0.1)), LAST)\n",
    "mixing of tokens": "mix = nn.Sequential(nn.GELU(), nn.Linear(8, num_tokens), nn.Dropout(0.1))\n",
    # DRP407
    "batch norm before": model(LAYERS, "return self.drop(self.norm(self.hidden(x)))"),
    "layer norm": "row = nn.Sequential(nn.Dropout(0.1), nn.LayerNorm(8))\n",
    # DRP408
    "behind the activation": "row = nn.Sequential(nn.GELU(), nn.Dropout(0.1))\n",
    # DRP409
    "convolution of one pixel": "row = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Dropout(0.1), nn.Conv2d(8, 8, (1, 1)), "
    "nn.Dropout(0.1), nn.Conv2d(8, 8, kernel_size=1), nn.Dropout(0.1))\n",
    "map that is flattened next": "row = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Dropout(0.1), nn.Flatten())\n",
    "map that is flattened a line later": model(LAYERS, "x = self.drop(F.relu(self.conv(x)))\nreturn x.flatten(1)"),
    "dropout of a vector": "row = nn.Sequential(nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Dropout(0.1))\n",
    "channel dropout": "row = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Dropout2d(0.1))\n",
    "convolution over time": "row = nn.Sequential(nn.Conv1d(8, 8, 3), nn.Dropout(0.1))\n",
}  # fmt: skip

# Names that say that it is meant.
NAMED = {
    "Monte Carlo": script(test=TEST.replace("def test", "def mc_dropout_test"), given="net, loader").replace(
        "return test(", "return mc_dropout_test("
    ),
    "sampler": model(LAYERS, "keep = torch.bernoulli(x)\nreturn keep * x", "GumbelSampler"),
    "augmentation": model(LAYERS, "keep = torch.rand_like(x) > self.p\nreturn x * keep", "ChannelDropAugment"),
    "reconstruction by a VAE": model(LAYERS, "keep = torch.bernoulli(x)\nreturn x * keep", "VAE"),
    "topic model": model(LAYERS, "return F.log_softmax(self.drop(self.fc(x)), dim=1)", "ProdLDA"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "source"), BAD.values(), ids=BAD)
def test_found(code, source):
    """These are reported, once, and by that rule alone."""
    assert found(source) == [code]


@pytest.mark.parametrize("source", CLEAN.values(), ids=CLEAN)
def test_left_alone(source):
    """This code is correct or intended: none of these rules reports it."""
    assert found(source) == []


@pytest.mark.parametrize("source", NAMED.values(), ids=NAMED)
def test_a_name_that_says_that_it_is_meant_makes_it_information(source):
    """Findings in classes and functions of such names have severity `info` and no fix."""
    module = read("example.py", Text((HEAD + source).encode()))
    findings = check(module, [rule for rule in RULES if rule.code in CODES])

    assert [(one.severity, one.fix) for one in findings] == [(Severity.INFO, None)]
