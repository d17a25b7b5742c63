"""DRP306: rates that the forward pass changes, in source and in a trace, and rates that only others change."""

import pytest

import dropkit
from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = """\
import math
import random

import torch
import torch.nn as nn
import torch.nn.functional as F

"""

BAD = {
    "decayed": """
class Decaying(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        self.drop.p *= 0.99
        return self.fc(self.drop(x))
""",
    "by a method": """
class Annealed(nn.Module):
    def __init__(self, total=1000):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.dropout = nn.Dropout(p=0.5)
        self.step, self.total = 0, total

    def _update_rate(self):
        self.step += 1
        self.dropout.p = 0.5 * (1 - self.step / self.total)

    def forward(self, x):
        if self.training:
            self._update_rate()
        return self.dropout(self.fc(x))
""",
    "a function's rate": """
class Curriculum(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.rate = 0.0

    def forward(self, x):
        if self.training:
            self.rate = min(0.5, self.rate + 1e-3)
        return F.dropout(self.fc(x), self.rate, training=self.training)
""",
    "by the depth": """
class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            self.drop.p = 0.1 * i
            x = self.drop(layer(x))
        return x
""",
    "at random": """
class Uncertain(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.do = nn.Dropout()

    def forward(self, x):
        self.do.p = random.uniform(0.1, 0.3)
        return self.do(self.fc(x))
""",
    "in all layers": """
class Scheduled(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 8), nn.Dropout(0.1))
        self.t = 0

    def forward(self, x):
        self.t += 1
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.1 + 0.4 / self.t
        return self.body(x)
""",
    "by setattr": """
class Switched(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        setattr(self.drop, "p", 0.2)
        return self.drop(self.fc(x))
""",
    "in a row": """
class Indexed(nn.Module):
    def __init__(self):
        super().__init__()
        self.row = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.4))

    def forward(self, x):
        self.row[1].p = 0.1
        return self.row(x)
""",
    "in a list": """
class Many(nn.Module):
    def __init__(self):
        super().__init__()
        self.fcs = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.drops = nn.ModuleList(nn.Dropout(0.5) for _ in range(2))

    def forward(self, x):
        for fc, drop in zip(self.fcs, self.drops):
            drop.p = drop.p / 2
            x = drop(fc(x))
        return x
""",
    "an argument of forward": """
class Told(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, rate=0.1):
        self.drop.p = rate
        return self.drop(self.fc(x))
""",
}
RIGHT = {
    "by a method for others": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)

    def set_rate(self, p):
        self.drop.p = p

    def forward(self, x):
        return self.drop(self.fc(x))
""",
    "in the constructor": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.drop = nn.Dropout()
        self.drop.p = 0.2

    def forward(self, x):
        return self.drop(self.fc(x))
""",
    "another p": """
class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.LPPool1d(2, 2)
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        self.pool.p = 3
        return self.drop(x)
""",
    "a local rate": """
class Local(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = 0.2

    def forward(self, x):
        rate = self.rate
        rate = rate * 1.0
        return F.dropout(x, rate, training=self.training)
""",
    "a step of training": """
class Stepped(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = 0.2

    def forward(self, x):
        return F.dropout(x, self.rate, training=self.training)

    def on_train_epoch_end(self):
        self.rate *= 0.9
""",
    "a count": """
class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        self.calls += 1
        return self.drop(x)
""",
}


def found(source):
    findings = check(read("example.py", Text((HEAD + source).encode())), [r for r in RULES if r.code == "DRP306"])
    return [finding.severity.value for finding in findings]


@pytest.mark.parametrize("source", BAD.values(), ids=BAD)
def test_a_rate_that_forward_changes_is_remarked(source):
    assert found(source) == ["info"]


@pytest.mark.parametrize("source", RIGHT.values(), ids=RIGHT)
def test_a_rate_that_others_change_is_left_alone(source):
    assert found(source) == []


@pytest.mark.parametrize("name", sorted(BAD.keys() - {"a function's rate"}))
def test_a_run_shows_that_the_rate_changes(name):
    """The audit remarks it, too, except for a function that is called once: it has no rate before."""
    assert "DRP306" in _audited(BAD[name])


@pytest.mark.parametrize("source", RIGHT.values(), ids=RIGHT)
def test_a_run_shows_that_the_rate_stays(source):
    assert "DRP306" not in _audited(source)


def _audited(source):
    torch = pytest.importorskip("torch")  # here, since rules are tested without torch
    names: dict = {}
    exec(HEAD + source, names)
    model = next(v for v in names.values() if isinstance(v, type) and v.__module__ == "builtins")()
    return [finding.code for finding in dropkit.audit(model, torch.randn(4, 8)).findings]
