"""Findings that depend on other files: a subclass or an owner may apply what a class builds."""

import pytest
from helpers.lint import codes

from dropkit.lint.engine.config import Config
from dropkit.lint.engine.project import check_paths

HOLDER = """\
from torch import nn


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.1)
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x)
"""


READERS = {
    "subclass": "from encoder import Encoder\nclass A(Encoder):\n    def forward(self, x): return self.drop(x)\n",
    "subclass of a subclass": "from encoder import Encoder\nclass A(Encoder): ...\n"
    "class B(A):\n    def f(self, x): return self.drop(x)\n",
    "holder": "import encoder\nclass Net:\n    def __init__(self):\n        self.part = encoder.Encoder()\n"
    "    def forward(self, x):\n        return self.part.drop(x)\n",
    "local": "from encoder import Encoder\ndef run(x):\n    part = Encoder()\n    return part.drop(x)\n",
    "loose": "from encoder import Encoder\ndef run(part: Encoder, x):\n    return part.inner.drop(x)\n",
}


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_another_file_may_apply_what_a_class_only_builds(project, reader):
    """This holds whether the other file is checked too, or is only part of the same project."""

    def found(*paths):
        return codes(check_paths([str(project / path) for path in paths], Config(root=project)))

    (project / "net.py").unlink()
    (project / "encoder.py").write_text(HOLDER)
    assert found(".") == found("encoder.py") == ["DRP202"]
    (project / "other.py").write_text(reader)

    assert found(".") == found("encoder.py") == []


def test_reading_an_attribute_of_another_class_keeps_the_finding(project):
    (project / "encoder.py").write_text(HOLDER)
    (project / "net.py").write_text(
        "class Other:\n    def f(self, x):\n        return self.drop(x) + self.part.drop(x)\n"
    )

    assert codes(check_paths([str(project)], Config(root=project))) == ["DRP202"]


@pytest.mark.parametrize("count", [3, 40])
def test_conditions_on_many_classes_are_decided(tmp_path, count):
    """A subclass in another file may apply what its base constructs, for few classes and for many."""
    (tmp_path / "pyproject.toml").write_text("")
    body = "(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.drop = nn.Dropout(0.1)\n"
    forward = "    def forward(self, x):\n        return x\n"
    (tmp_path / "bases.py").write_text(
        "from torch import nn\n" + "".join(f"class Base{i}{body}{forward}" for i in range(count))
    )
    (tmp_path / "subclasses.py").write_text(
        "from bases import *\n"
        + "".join(
            f"class Derived{i}(Base{i}):\n    def run(self, x):\n        return self.drop(x)\n" for i in range(1, count)
        )
    )

    result = check_paths([str(tmp_path / "bases.py")], Config(root=tmp_path))

    assert [(f.code, f.span.line) for f in result.findings] == [("DRP202", 5)]


UNREAD = """\
from torch import nn
from mixins import Saving


class Net(nn.Module, Saving):
    def __init__(self, dropout=0.1):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x)
"""
MIXINS = {
    "reads nothing": ("class Saving:\n    def save(self): ...\n", ["DRP203"]),
    "of a base": ("from deeper import Base\nclass Saving(Base):\n    def save(self): ...\n", ["DRP203"]),
    "not in the project": ("from library import Saving\n", []),
    "of a base that is not in the project": ("from library import Far\nclass Saving(Far): ...\n", []),
    "takes the argument": ("class Saving:\n    def __init__(self, dropout): ...\n", []),
    "of another class with the argument": (
        "class Saving: ...\nclass Other(Saving):\n    def __init__(self, dropout): ...\n",
        [],
    ),
    "keeps all arguments": ("class Saving:\n    def __init_subclass__(cls): ...\n", []),
}


@pytest.mark.parametrize(("mixin", "expected"), MIXINS.values(), ids=MIXINS)
def test_mixins_of_other_files_are_looked_up_for_an_ignored_argument(project, mixin, expected):
    """This holds whether the other file is checked too, or is only part of the same project."""
    (project / "net.py").write_text(UNREAD)
    (project / "mixins.py").write_text(mixin)
    (project / "deeper.py").write_text("class Base:\n    def load(self): ...\n")

    found = [codes(check_paths([path], Config(root=project))) for path in (str(project), str(project / "net.py"))]

    assert found == [expected, expected]


CALLERS = {
    "encoder": [],
    "text_encoder": [],
    "model": [],
    "decoder": ["DRP202"],
}


@pytest.mark.parametrize(("caller", "expected"), CALLERS.items(), ids=CALLERS)
def test_the_name_of_an_object_says_whether_it_may_be_one(project, caller, expected):
    """A file that imports the class may call its dropout on objects that are named after it, or after nothing."""
    (project / "net.py").write_text(HOLDER)
    (project / "run.py").write_text(
        f"from net import Encoder\nclass Run:\n    def run(self, x):\n        return self.{caller}.drop(x)\n"
    )

    assert codes(check_paths([str(project)], Config(root=project))) == expected
