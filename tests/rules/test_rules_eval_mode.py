"""Evaluation in training mode (DRP107): the kinds that are found, the guards, and both over the files of a project."""

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401
from helpers.lint import codes

from dropkit.diagnostics import Severity
from dropkit.lint.engine.check_file import check
from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project import check_paths
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.drop = nn.Linear(8, 2), {layer}

    def forward(self, x):
        return self.drop(self.fc(x))

"""
TRAIN = """
def train_epoch(model, loader, optimizer):
    model.train()
    for x, y in loader:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

"""
EVALUATE = """
def evaluate(model, loader):
    hits = 0
    for x, y in loader:
        hits += (model(x).argmax(1) == y).sum().item()
    return hits

"""
MAIN = """
def main(loader, test_loader):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for epoch in range(3):
        {train}
        {before}
        print(evaluate(model, test_loader))
        {after}

"""
LOOP = """
def main(loader, val_loader):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for epoch in range(3):
        model.train()
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            {batch}
        {epoch}
    {end}
"""
PREDICT = "def predict(model, x):\n    {}\n    return model(x)\n"


def net(layer="nn.Dropout(0.5)"):
    return HEAD + NET.replace("{layer}", layer)


def main(train="train_epoch(model, loader, optimizer)", before="pass", after="pass"):
    return MAIN.format(train=train, before=before, after=after)


def script(evaluate=EVALUATE, layer="nn.Dropout(0.5)", helpers="", **parts):
    return net(layer) + TRAIN + evaluate + helpers + main(**parts)


def loop(batch="pass", epoch="pass", end="pass"):
    return net() + LOOP.format(batch=batch, epoch=epoch, end=end)


VALIDATE = "for x, y in val_loader:\n            total = F.mse_loss(model(x), y).item()"
CONTEXT = "@contextlib.contextmanager\ndef evaluating(model):\n    model.eval()\n    yield\n    model.train()\n"
PARTS = """losses = []
            for part in x:
                losses.append(F.cross_entropy(model(part), y))
            loss = sum(losses)"""
BAD = {
    "predict sets the mode": HEAD + PREDICT.replace("{}", "model.train()"),
    "a method sets the mode": HEAD + "class Judge:\n    def score(self, x):\n        self.net.train()\n"
    "        return self.net(x).argmax()\n",
    "evaluate between epochs": script(),
    "batch norm": script(layer="nn.BatchNorm1d(2)"),
    "eval only after the epochs": script(after="pass\n    model.eval()"),
    "predict of the same file evaluates rightly": script(helpers=PREDICT.replace("{}", "model.eval()")),
    "a helper that ends in training mode": script(
        helpers="def log(model):\n    model.eval()\n    model.train()\n\n", before="log(model)"
    ),
    "a loop over validation data": loop(epoch=VALIDATE),
    "a loop over validation data without gradients": loop(
        epoch="with torch.no_grad():\n            for x, y in val_loader:\n                acc = (model(x) == y).sum()"
    ),
    "predictions after training": loop(end="print(model(torch.randn(4, 8)))"),
    "predictions, two assignments on": loop(
        end="out = model(torch.randn(4, 8))\n    best = out.argmax(1)\n    print(best)"
    ),
    "held-out data within the batch loop": loop(
        batch="with torch.no_grad():\n                val_acc = (model(val_x).argmax(1) == val_y).sum()"
    ),
    "loaded and used": net()
    + "model = Net()\nmodel.load_state_dict(torch.load('w'))\nprint(model(torch.randn(1, 8)))\n",
    "loaded by the constructor": net() + "class Judge:\n    def __init__(self):\n        self.net = Net()\n"
    "        self.net.load_state_dict(torch.load('w'))\n\n"
    "    def label(self, x):\n        return self.net(x).argmax(-1)\n",
    "a flag that is literally true": HEAD + PREDICT.replace("{}", "model.train(True)"),
    "held-out data in one go": loop(batch="val_loss = F.mse_loss(model(x_val), y_val)"),
    "a Module that fits itself": net() + "class Fitted(Net):\n    def fit(self, loader):\n        for x, y in loader:\n"
    "            F.cross_entropy(self(x), y).backward()\n        return self.score(loader)\n\n"
    "    def score(self, loader):\n        return sum((self(x).argmax(1) == y).sum() for x, y in loader)\n",
    "a model that a function builds": script(helpers="def build():\n    return Net().to('cpu')\n").replace(
        "model = Net()", "model = build()"
    ),
}
GOOD = {
    "eval in the function": script(EVALUATE.replace("hits = 0", "model.eval()\n    hits = 0")),
    "eval in the constructor": net() + "class Judge:\n    def __init__(self):\n        self.net = Net()\n"
    "        self.net.load_state_dict(torch.load('w'))\n"
    "        self.net.eval()\n\n    def label(self, x):\n        return self.net(x).argmax(-1)\n",
    "eval in the caller": script(before="model.eval()"),
    "train(False) in the caller": script(before="model.train(False)"),
    "a flag in the caller": script(before="model.train(mode=epoch < 2)"),
    "eval in a helper": script(helpers="def freeze(m):\n    m.eval()\n\n", before="freeze(model)"),
    "eval at the end of training": script(
        TRAIN.replace("train_epoch", "fit") + "    model.eval()\n" + EVALUATE, train="fit(model, loader, optimizer)"
    ),
    "a context manager of the file": script(
        EVALUATE.replace("hits = 0", "hits = 0\n    with evaluating(model):\n        model(1).item()\n    return 0"),
        helpers=CONTEXT,
    ),
    "an unknown context manager": script(
        EVALUATE.replace("for x", "with switched.inference(model):\n      for x").replace(
            "        hits +=", "          hits +="
        )
    ),
    "an unknown decorator": script(EVALUATE.replace("def", "@in_eval_mode\ndef")),
    "an arm of a condition": script(
        before="if epoch:\n            model.eval()\n        else:\n            model.train()"
    ),
    "a trainer": script(train="trainer.train()"),
    "no layer with a mode": script(layer="nn.LayerNorm(2)"),
    "another model": script().replace("evaluate(model, test", "evaluate(Net(), test"),
    "a metric of the batch": loop(batch="with torch.no_grad():\n                acc = (model(x).argmax(1) == y).sum()"),
    "losses of small batches": loop().replace("loss = F.cross_entropy(model(x), y)", PARTS),
    "samples of noise": loop(epoch="with torch.no_grad():\n            pred = model(fixed_noise)"),
    "repeated samples": loop(end="preds = torch.stack([model(val_x) for _ in range(20)])"),
    "repeated samples in training mode": HEAD
    + "def predict(model, x):\n    model.train()\n    return torch.stack([model(x) for _ in range(9)]).mean(0)\n",
    "losses of a detector": HEAD
    + "def evaluate(model, images, targets):\n    model.train()\n    return model(images, targets)\n",
    "a reason in a comment": HEAD + PREDICT.replace("{}", "model.train()  # the batch norm must use the batch"),
    "pretrained, in evaluation mode": HEAD
    + "from transformers import AutoModel\nmodel = AutoModel.from_pretrained('x')\nprint(model(torch.ones(1)))\n",
    "hooks of Lightning": HEAD
    + "from lightning import LightningModule\nclass Task(LightningModule):\n    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))\n"
    "    def training_step(self, batch):\n        self.net(batch).backward()\n"
    "    def validation_step(self, batch):\n        val_loss = self.net(batch).sum()\n        self.log(val_loss)\n",
    "nothing after training": loop(),
}
PROJECT = {
    "net.py": net(),
    "training.py": HEAD + TRAIN,
    "metrics.py": HEAD + EVALUATE,
    "main.py": HEAD + "from metrics import evaluate\nfrom net import Net\nfrom training import train_epoch\n" + main(),
}
ELSEWHERE = {
    "eval in the caller": {"main.py": PROJECT["main.py"].replace("pass\n        print", "model.eval()\n        print")},
    "a helper of a third file": {
        "main.py": PROJECT["main.py"].replace("pass\n        print", "prepare(model)\n        print")
        + "\nfrom modes import prepare\n",
        "modes.py": HEAD + "def prepare(model):\n    model.eval()\n",
    },
    "no layer with a mode": {"net.py": net("nn.LayerNorm(2)")},
    "no training": {"training.py": HEAD + "def train_epoch(model, loader, optimizer):\n    return model.train()\n"},
}


def findings(source):
    found = check(read("example.py", Text(source.encode())), [rule for rule in RULES if rule.code == "DRP107"])
    return [finding for finding in found if finding.is_likely]


def found(folder, files):
    (folder / "pyproject.toml").write_text("")
    for name, text in files.items():
        (folder / name).write_text(text)
    return codes(check_paths([str(folder)], Config(root=folder, select=("DRP107",))))


@pytest.mark.parametrize("source", BAD.values(), ids=BAD)
def test_evaluation_in_training_mode_is_found(source):
    assert [finding.severity for finding in findings(source)] == [Severity.WARNING]


@pytest.mark.parametrize("source", GOOD.values(), ids=GOOD)
def test_a_mode_that_may_be_right_is_not_reported(source):
    assert findings(source) == []


def test_names_that_say_so_make_it_information():
    source = HEAD + "def predict_mc_dropout(model, x):\n    model.train()\n    return model(x)\n"

    assert [finding.severity for finding in findings(source)] == [Severity.INFO]


def test_it_is_found_over_four_files(tmp_path):
    """The model, its training, its evaluation and the loop around them each have a file."""
    assert found(tmp_path, PROJECT) == ["DRP107"]


@pytest.mark.parametrize("changed", ELSEWHERE.values(), ids=ELSEWHERE)
def test_other_files_show_that_the_mode_is_right(changed, tmp_path):
    assert found(tmp_path, {**PROJECT, **changed}) == []


def test_a_function_that_nobody_calls_is_not_reported(tmp_path):
    assert found(tmp_path, {"metrics.py": PROJECT["metrics.py"]}) == []
