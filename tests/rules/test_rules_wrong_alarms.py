"""Code that looks like a misuse and is none, one test for each kind, also where another file says so."""

import pytest
from helpers.lint import codes

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project import check_paths

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
NET = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return self.drop(self.fc(x))

    {}
"""
)
LEAF = (
    HEAD
    + """
class Scale(nn.Module):
    def __init__(self, p=0.1):
        super().__init__()
        self.p = p
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return F.dropout(x * self.weight, self.p, self.training)


def run(x):
    model = {}
    model.training = False
    return model(x)
"""
)
BUILT = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self, p):
        super().__init__()
        zero = 0.0
        self.fc = nn.Linear(2, 2)
        self.drop = {}

    def forward(self, x):
        return self.fc(x)
"""
)
FORWARD = (
    HEAD
    + """
class Net(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.drop = nn.Dropout(p)

    def forward(self, x, sigma):
        {}
"""
)
CHOICE = (
    HEAD
    + """
class Narrow(nn.Module):
    def __init__(self, width, dropout=0.1):
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        return self.fc(x)


class Wide(Narrow):
    pass

{}
"""
)
ALONE = {
    "training data": NET.replace("{}", "def train(self, train_loader, epochs):\n        self.history = []"),
    "data called train": NET.replace("{}", "def train(self, train, flag=True):\n        self.x = train"),
    "two tensors": NET.replace("{}", "def train(self, x_pos, x_neg):\n        self.x = x_pos"),
    "test data": NET.replace("{}", "def eval(self, loader):\n        self.x = loader"),
    "flag of a leaf": LEAF.replace("{}", "Scale()"),
    "flag of one of torch's layers": LEAF.replace("{}", "nn.LogSoftmax(-1)"),
    "rate of zero": BUILT.replace("{}", "nn.Dropout(0.0)"),
    "rate of a name that is zero": BUILT.replace("{}", "nn.Dropout(p=zero)"),
    "plain list of zeros": BUILT.replace("{}", "[nn.Dropout(0.0), nn.Dropout(0)]"),
    "template": FORWARD.replace("{}", "self.check(x)\n        raise NotImplementedError('write it')"),
    "functional in a template": FORWARD.replace("{}", "self.x = F.dropout(x)\n        raise NotImplementedError"),
    "noise": FORWARD.replace(
        "{}", "noise = torch.randn_like(x) * sigma\n        return self.drop(x) + F.dropout(noise)"
    ),
    "noise, drawn elsewhere": FORWARD.replace("{}", "return self.drop(x) + sigma * F.dropout(self.noise_like(x))"),
    "branches": CHOICE.replace(
        "{}", "def build(kind, n, p):\n    if kind:\n        return Narrow(n, p)\n    else:\n        return Wide2(n, p)"
    ),
    "branches of a match": CHOICE.replace(
        "{}",
        "def build(kind, n, p):\n    match kind:\n        case 1:\n            net = Narrow(n, p)\n        case _:\n"
        "            net = Wide2(n, p)\n    return net",
    ),
    "conditional expression": CHOICE.replace(
        "{}", "def build(k, n, p):\n    return Narrow(n, p) if k else Wide2(n, p)"
    ),
}
# Files of a project; the first is checked.
PROJECTS = {
    "trainer whose base is in another file": {
        "experiment.py": HEAD + "from base import Base\nclass Experiment(Base):\n    def __init__(self):\n"
        "        self.drop = nn.Dropout(0.1)\n    def forward(self, x):\n        return self.drop(x)\n"
        "    def train(self, mode=True):\n        self.training = mode\n",
        "base.py": "class Base:\n    def __init__(self, model):\n        self.model = model\n",
    },
    "setter in another file": {
        "run.py": HEAD + "from wrapper import Wrapper\ndef run(x):\n    model = Wrapper()\n    model.training = False\n"
        "    return model(x)\n",
        "wrapper.py": HEAD
        + "class Wrapper(nn.Module):\n    @property\n    def training(self):\n        return self.on\n"
        "    @training.setter\n    def training(self, mode):\n        self.on = mode\n",
    },
    "setter of a base in a third file": {
        "run.py": HEAD + "from derived import Derived\ndef run(model: Derived, x):\n    model.training = False\n"
        "    return model(x)\n",
        "derived.py": "from wrapper import Wrapper\nclass Derived(Wrapper):\n    pass\n",
        "wrapper.py": HEAD
        + "class Wrapper(nn.Module):\n    @property\n    def training(self):\n        return self.on\n"
        "    @training.setter\n    def training(self, mode):\n        self.on = mode\n",
    },
    "table in another file": {
        "narrow.py": CHOICE.replace("{}", ""),
        "factory.py": "from narrow import Narrow\nfrom other import Other\n"
        "def build(kind, n, p):\n    return {'a': Narrow, 'b': Other}[kind](n, p)\n",
    },
}


def found(folder, files, checked):
    (folder / "pyproject.toml").write_text("")
    for name, text in files.items():
        (folder / name).write_text(text)
    return codes(check_paths([str(folder / checked)], Config(root=folder)))


@pytest.mark.parametrize("source", ALONE.values(), ids=ALONE)
def test_correct_code_is_not_reported(source, tmp_path):
    assert found(tmp_path, {"net.py": source}, "net.py") == []


@pytest.mark.parametrize("files", PROJECTS.values(), ids=PROJECTS)
def test_another_file_shows_that_it_is_correct(files, tmp_path):
    """Without the other files the same code is reported; with them it is not, whether they are checked or not."""
    first = next(iter(files))

    assert found(tmp_path, {first: files[first]}, first) != []
    assert found(tmp_path, files, first) == found(tmp_path, files, ".") == []


def test_a_class_among_alternatives_that_no_file_chooses_from_is_reported(tmp_path):
    """The guard does not hide the misuse itself."""
    assert found(tmp_path, {"net.py": CHOICE.replace("{}", "")}, "net.py") == ["DRP203"]
