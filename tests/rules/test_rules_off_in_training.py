"""DRP205: a literal `training=False` never drops; it is reported unless something says that this is meant."""

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
CALL = "F.dropout(self.fc(x), 0.5, training=False)"
HELPER = "F.dropout(x, p=p, training=False)"


def found(source, path="net.py"):
    return [one for one in check(read(path, Text((HEAD + source).encode())), RULES) if one.code == "DRP205"]


def net(body, name="Net", method="forward", rest=""):
    return (
        f"class {name}(nn.Module):\n    def __init__(self, p=0.1):\n        super().__init__()\n"
        f"        self.p = p\n        self.fc = nn.Linear(3, 3)\n    def {method}(self, x):\n        {body}\n{rest}"
    )


def helper(body, name="drop", arguments="x, p"):
    return f"def {name}({arguments}):\n    {body}\n"


@pytest.mark.parametrize(
    "source",
    [
        net(f"return {CALL}"),
        net("x = F.dropout2d(x, self.p, False)\n        return self.fc(x)"),
        net("return self.fc(torch.nn.functional.dropout(x, training=False, p=self.p))"),
        net("return self.fc(F.alpha_dropout(x, 0.1, training=False))"),
        net("return self.fc(F.dropout(x, self.p, 0))"),
        net(f"return {CALL}", method="encode"),
        net(f"return {CALL}", name="Decoder"),
        helper(f"return {HELPER}"),
        helper("mask = torch.ones(3)\n    F.dropout(mask, p=p, training=False, inplace=True)\n    return mask", "mask"),
        helper("return F.dropout(torch.ones_like(x), q, False)", "get_dropout_mask", "x, q"),
        helper("return F.alpha_dropout(F.selu(x), p)"),
        helper("return F.feature_alpha_dropout(x)", "block", "x"),
        helper("return F.relu(F.dropout(x, 0.5, False))", "block", "x")
        + net("return self.fc(block(x))"),
        helper(f"def inner(x):\n        return {HELPER}\n    return inner(x)", "apply_dropout"),
    ],
)  # fmt: skip
def test_dropout_that_never_drops_is_found(source):
    assert [one.severity.value for one in found(source)] == ["warning"]


def test_the_fix_of_a_literal_is_unsafe():
    """The author wrote a False: only a default that differs from other functions' is surely an oversight."""
    literal, default = found(net(f"return {CALL}")), found(net("return F.alpha_dropout(x, 0.1)"))

    assert [one.fix.safe for one in literal + default] == [False, True]


@pytest.mark.parametrize(
    "source",
    [
        net("return F.dropout(x, 0.0, training=False)"),
        net("return F.dropout(x, p=0, training=False)"),
        net(f"return {CALL}  # no dropout while the weights are frozen"),
        net(f"# dropout is off: this network only runs in evaluation\n        return {CALL}"),
        net(f"if not self.training:\n            return {CALL}\n        return self.fc(x)"),
        net(f"return {CALL}", name="FrozenEncoder"),
        net(f"return {CALL}", name="OnnxDecoder"),
        net(f"return {CALL}", name="InferenceNet"),
        net(f"return {CALL}", method="forward_eval"),
        net(f"return {CALL}", method="infer"),
        net(f"return {CALL}", method="predict"),
        net("return F.dropout(x, self.p, training=self.training)"),
        helper(f"return {HELPER}", "encoder_infer"),
        helper(f"return {HELPER}", "without_dropout"),
        helper(f"return {HELPER}", "test_drop"),
        helper("return F.dropout(x, 0.5, False)", "block", "x"),
        helper("return F.alpha_dropout(x, 0.1)", "test_selu"),
    ],
)
def test_dropout_that_is_off_on_purpose_is_not(source):
    assert not found(source)


@pytest.mark.parametrize("path", ["exports/decoder.py", "metrics/inception.py", "src/eval/nets/net.py", "to_onnx.py"])
def test_the_place_of_a_file_says_that_it_never_trains(path):
    assert not found(net(f"return {CALL}"), path)
    assert found(net("return F.alpha_dropout(x, 0.1)"), path), "a default is an oversight in any place"
