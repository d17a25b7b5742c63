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
