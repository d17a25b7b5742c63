"""Which conditions on the training flag hold at a call."""

import re

import pytest
from helpers.sources import call, index

from dropkit.lint.semantic import training_flag

# Whether the call of `f` stands under a condition on `a`, which is the training flag here.
CONDITIONS = {
    "f(x)": False,
    "if a:\n    f(x)": True,
    "if a:\n    pass\nelse:\n    f(x)": True,
    "if a:\n    pass\nelif b:\n    f(x)": True,
    "while a:\n    f(x)": True,
    "if f(x):\n    a": False,
    "y = f(x) if a else 0": True,
    "y = 0 if a else f(x)": True,
    "y = a and b and f(x)": True,
    "y = a or f(x)": True,
    "y = f(x) and a": False,
    "y = [f(i) for i in x if a]": True,
    "if a:\n    return x\nf(x)": True,
    "if a:\n    raise x\nf(x)": True,
    "if a:\n    return x\nelse:\n    y = 1\nf(x)": True,
    "if a:\n    y = 1\nelse:\n    return x\nf(x)": True,
    "if a:\n    y = 1\nf(x)": False,
    "assert a\nf(x)": True,
    "for i in x:\n    if a:\n        continue\n    f(i)": True,
    "if a:\n    return x\nwith b:\n    try:\n        f(x)\n    except c:\n        pass": True,
}


@pytest.mark.parametrize(("body", "expected"), CONDITIONS.items(), ids=CONDITIONS)
def test_conditions_before_and_around_a_node_are_found(body, expected):
    """Branches, conditional expressions and earlier exits count, within the function only."""
    lines = "".join(f"        {line}\n" for line in re.sub(r"\ba\b", "self.training", body).split("\n"))
    module = index(f"if self.training:\n    def g(self, x):\n{lines}")

    assert training_flag.under_mode(module, call(module)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("if self.training:\n    f(x)", True),
        ("if not self.training:\n    return x\nf(x)", True),
        ("on = self.training and self.p > 0\nif on:\n    f(x)", True),
        ("if is_eval:\n    pass\nelse:\n    f(x)", True),
        ("y = f(x) if stage == TRAIN else x", True),
        ("if self.p > 0:\n    f(x)", False),
        ("if self.training:\n    y = 1\nf(x)", False),
        ("f(self.training)", False),
    ],
)
def test_a_condition_may_test_the_mode(body, expected):
    """It names a flag, or a local name that is set to one."""
    module = index("def g(self, x):\n" + "".join(f"    {line}\n" for line in body.split("\n")))

    assert training_flag.under_mode(module, call(module)) is expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("f(self.training)", True),
        ("p = self.p if self.training else 0\nf(p)", True),
        ("p = 0\nif self.training:\n    p = self.p\nf(p)", True),
        ("p = self.p\nf(p)", False),
        ("f(self.train_dropout_rate)", False),
    ],
)
def test_a_value_may_follow_the_mode(body, expected):
    """It names a flag, or its only assignment does."""
    module = index("def g(self, x):\n" + "".join(f"    {line}\n" for line in body.split("\n")))

    assert training_flag.follows_mode(module, call(module).args[0]) is expected
