"""What names of a file stand for, and what its classes inherit."""

import ast

import pytest
from helpers.sources import call, index

IMPORTS = {
    "import torch": "torch.nn.functional.dropout",
    "import torch as t": "t.nn.functional.dropout",
    "import torch.nn": "torch.nn.functional.dropout",
    "import torch.nn as nn": "nn.functional.dropout",
    "from torch import nn": "nn.functional.dropout",
    "import torch.nn.functional as F": "F.dropout",
    "from torch.nn import functional as F": "F.dropout",
    "from torch.nn import functional": "functional.dropout",
    "from torch.nn.functional import dropout": "dropout",
    "from torch.nn.functional import dropout as drop": "drop",
    "from torch.nn.functional import *": "dropout",
    "from torch import *": "nn.functional.dropout",
    "from .common import *": "F.dropout",
    "try:\n    import torch.nn.functional as F\nexcept ImportError:\n    import chainer.functional as F": "F.dropout",
    "try:\n    import fast.functional as F\nexcept ImportError:\n    import torch.nn.functional as F": "F.dropout",
    "import dropkit.functional as F": "F.dropout",
    "import torch.nn.functional\nF = torch.nn.functional": "F.dropout",
    "import torch.nn.functional as F\nclass A:\n    F = 3": "F.dropout",
    "import torch.nn.functional as F\ndef other(F):\n    F = 3": "F.dropout",
}


@pytest.mark.parametrize(("imports", "name"), IMPORTS.items(), ids=repr)
@pytest.mark.parametrize("within", ["{}({})", "def f(x):\n    {}(x)", "class B:\n    def f(self):\n        {}(self.x)"])
def test_imported_names_are_known_by_one_dotted_name(imports, name, within):
    """However a function is imported, and wherever it is called."""
    module = index(f"{imports}\n{within.format(name, 'x')}\n")

    assert module.called(module.calls["dropout"][-1]) == "torch.nn.functional.dropout"
    assert module.calls_of("torch.nn.functional.dropout") == module.calls["dropout"][-1:]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import chainer.functional as F\nF.dropout(x)", "chainer.functional.dropout"),
        ("from chainer import functional as F\nF.dropout(x)", "chainer.functional.dropout"),
        ("from . import functional as F\nF.dropout(x)", ".functional.dropout"),
        ("from ..ops import dropout\ndropout(x)", "..ops.dropout"),
        ("F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f(F):\n    F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f(x, *, F=None):\n    F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f():\n    F = make()\n    F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f():\n    for F in x:\n        F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f():\n    with x as F:\n        F.dropout(x)", None),
        ("import torch.nn.functional as F\ndef f():\n    def g():\n        F.dropout(x)\n    F = 3", None),
        ("def f():\n    import torch.nn.functional as F\ndef g():\n    F.dropout(x)", None),
        ("def f():\n    import torch.nn.functional as F\n    F.dropout(x)", "torch.nn.functional.dropout"),
        ("def f():\n    from torch.nn import functional as F\n    return lambda: F.dropout(x)",
         "torch.nn.functional.dropout"),
        ("import torch.nn.functional as F\nF().dropout(x)", None),
    ],
)  # fmt: skip
def test_a_name_that_is_bound_to_something_else_is_not_torchs(source, expected):
    """Other libraries, parameters, assignments and scopes decide what a name is."""
    module = index(source + "\n")

    assert module.called(call(module, "dropout")) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch.nn.modules.dropout as d\nf(d.Dropout)", "torch.nn.Dropout"),
        ("from torch.nn.modules.dropout import Dropout\nf(Dropout)", "torch.nn.Dropout"),
        ("from dropkit.nn import Dropout\nf(Dropout)", "torch.nn.Dropout"),
        ("from torch import nn\nDrop = nn.Dropout\nf(Drop)", "torch.nn.Dropout"),
        ("import pytorch_lightning as pl\nf(pl.LightningModule)", "lightning.pytorch.LightningModule"),
        ("class Dropout:\n    pass\nf(Dropout)", "Dropout"),
    ],
)
def test_one_name_for_each_thing(source, expected):
    """Names under which torch, dropkit and Lightning have the same thing are one; a class of the file is its own."""
    module = index(source + "\n")

    assert module.dotted(call(module).args[0]) == expected


FAMILY = """
import torch
from torch import nn
from torch.nn import Dropout
from elsewhere import Base

class Root(nn.Module):
    def forward(self, x):
        return self.layer(x)

class Left(Root):
    def __init__(self):
        self.layer = nn.Dropout()

class Right(Root):
    pass

class Leaf(Left, Right):
    def extra(self):
        self.layer = None

class Dropout(Dropout):
    pass

class Plain:
    pass

class Known(Base):
    def __init__(self):
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)

class Unknown(Base):
    def forward(self, x):
        return x

class Function(torch.autograd.Function):
    pass

class Data(torch.utils.data.Dataset):
    pass

class Ring(Other):
    pass

class Other(Ring):
    pass

def make():
    class Inner(Left):
        pass
    return Inner
"""


@pytest.fixture
def family():
    return {one.name: one for one in index(FAMILY).classes}


def test_the_mro_has_each_base_once_nearest_first(family):
    """The class itself comes first; cyclic bases end."""
    assert [one.name for one in family["Leaf"].mro] == ["Leaf", "Left", "Right", "Root"]
    assert [one.name for one in family["Inner"].mro] == ["Inner", "Left", "Root"]
    assert {one.name for one in family["Ring"].mro} == {"Ring", "Other"}


def test_subclasses_are_direct_and_indirect(family):
    """The class itself is not among them."""
    assert {one.name for one in family["Root"].subclasses} == {"Left", "Right", "Leaf", "Inner"}
    assert family["Leaf"].subclasses == []


def test_what_bases_define_is_found(family):
    """Methods by the order of inheritance, values of an attribute from all of the mro."""
    leaf = family["Leaf"]

    assert leaf.method("forward").owner is family["Root"]
    assert leaf.method("absent") is None
    assert [ast.unparse(value) for value in leaf.values("layer")] == ["None", "nn.Dropout()"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Root", True), ("Leaf", True), ("Inner", True), ("Dropout", True), ("Known", True), ("Plain", False),
     ("Unknown", False), ("Function", False), ("Data", False), ("Ring", False)],
)  # fmt: skip
def test_modules_are_recognised_by_their_bases_or_by_their_layers(family, name, expected):
    """Bases in the file count; with an unknown base, a forward and layers do. A class may have the name of its base."""
    assert family[name].is_module is expected


def test_a_base_is_the_last_class_of_its_name_before_it():
    """Of two classes of one name, the one above."""
    module = index("from torch import nn\nclass A(nn.Module): pass\nclass B(A): pass\nclass A: pass\n")

    assert [one.is_module for one in module.classes] == [True, True, False]
