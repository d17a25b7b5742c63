"""Rules on training and evaluation: what else they find, and what looks like a misuse and is none."""

import pytest
from helpers.aliases import aliases_change_no_finding  # noqa: F401

from dropkit.lint.engine.check_file import check
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text
from dropkit.rules import RULES

HEAD = """
import torch
import torch.nn.functional as F
from torch import nn
"""
ATTENTION = """
try:
    from flash_attn.flash_attn_interface import flash_attn_func
except ImportError:
    flash_attn_func = None
import xformers.ops as xops
from .kernels import flash_attn_varlen_func

sdpa = F.scaled_dot_product_attention

class Attention(nn.Module):
    def __init__(self, config, p):
        super().__init__()
        self.p, self.zero, self.config = p, 0.0, config
        self.drop = nn.Dropout(p)

    def rate(self):
        return self.p if self.training else 0.0

    def forward(self, q, k, v, p=0.0, cond=None):
        {}
"""
LAYER = """
class Layer(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        {}
"""
OVERRIDE = """
class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.drop = nn.Dropout(0.1)

    {}
"""
MIXIN = "class Mixin:\n    {}\n"
AGENT = "class Agent(Base):\n    {}\n"
SCRIPT = "def evaluate(model, trainer, x):\n    {}\n"
TRAIN = "def train(self, mode=True):\n    "
MULTI_HEAD = "F.multi_head_attention_forward(q, k, v, 8, 2, w, b, None, None, False, "

BAD = [
    ("DRP101", LAYER, "return F.dropout(x, self.p, self.train)"),
    ("DRP101", LAYER, "return pt_utils.feature_dropout_no_scaling(x, self.p, self.train, False)"),
    ("DRP101", LAYER, "if self.train: x = F.dropout(x, self.p)"),
    ("DRP101", "class PPNP(BaseModel):\n    def forward(self, x):\n        {}", "return F.dropout(x)"),
    ("DRP101", "def mlp(x, p): return F.dropout(x, p)\n" + LAYER, "return mlp(x, self.p)"),
    ("DRP102", ATTENTION, "return sdpa(q, k, v, dropout_p=self.p)"),
    ("DRP102", ATTENTION, "return flash_attn_func(q, k, v, self.drop.p)"),
    ("DRP102", ATTENTION, "return flash_attn_varlen_func(q, k, v, dropout_p=self.p)"),
    ("DRP102", ATTENTION, "return xops.memory_efficient_attention(q, k, v, p=self.p)"),
    ("DRP102", ATTENTION, "return F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)"),
    ("DRP102", ATTENTION, "return F.scaled_dot_product_attention(q, k, v, None, self.config.attention_dropout)"),
    (
        "DRP102",
        ATTENTION,
        "return sdpa(q, k, v, dropout_p=self.p, training=True)",
    ),
    ("DRP102", ATTENTION, "rate = self.p\nreturn F.scaled_dot_product_attention(q, k, v, dropout_p=rate)"),
    ("DRP102", ATTENTION, "return F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if cond else 0.0)"),
    ("DRP102", ATTENTION, f"return {MULTI_HEAD}self.p, w, b)"),
    ("DRP102", ATTENTION, f"return {MULTI_HEAD}self.p, w, b, True)"),
    ("DRP103", LAYER, "drop = nn.Dropout(self.p)\nreturn drop(x)"),
    ("DRP103", LAYER, "self.drop = nn.Dropout(self.p)\nreturn self.drop(x)"),
    ("DRP103", LAYER, "return nn.Sequential(nn.Tanh(), nn.Dropout(0.1))(x)"),
    ("DRP103", "def mlp(x): return nn.Dropout(0.1)(x)\n" + LAYER, "return mlp(x)"),
    ("DRP104", OVERRIDE, TRAIN + "self.training = mode\n    return self"),
    ("DRP104", OVERRIDE, TRAIN + "self.fc.train(mode)\n    return self"),
    ("DRP110", OVERRIDE, TRAIN + "if mode:\n        return\n    return super().train(mode)"),
    ("DRP110", OVERRIDE, "def train(self, mode: bool = True, freeze=False) -> None:\n    super().train(mode)"),
    ("DRP110", OVERRIDE, "def eval(self):\n    super().eval()"),
    ("DRP110", MIXIN, TRAIN + "super().train(mode)"),
    ("DRP106", SCRIPT, "model.training = False\nreturn model(x)"),
    ("DRP106", SCRIPT, "model.train()\nfor a in x:\n    model.training = False"),
    ("DRP106", SCRIPT, "model.eval\nreturn model(x)"),
    ("DRP106", SCRIPT, "model.train = False\nreturn model(x)"),
    ("DRP106", OVERRIDE, "def predict(self, x):\n    self.training = False\n    return self(x)"),
]
GOOD = [
    ("def mlp(x, p): return F.dropout(x, p)\n" + LAYER, "return mlp(x, self.p if self.training else 0.0)"),
    ("def mlp(x, p): return F.dropout(x, p)\n" + LAYER, "return mlp(x, self.p) if self.training else x"),
    ("def mlp(x, p): return F.dropout(x, p)\nmlp(1, 2)\n" + LAYER, "return mlp(x, self.p)"),
    (ATTENTION, "return F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0)"),
    (
        ATTENTION,
        "return sdpa(q, k, v, dropout_p=self.p, training=self.training)",
    ),
    (ATTENTION, "rate = self.p if self.training else 0\nreturn flash_attn_func(q, k, v, dropout_p=rate)"),
    (ATTENTION, "rate = 0.0\nif self.training:\n    rate = self.p\nreturn flash_attn_func(q, k, v, rate)"),
    (ATTENTION, "if self.training:\n    return F.scaled_dot_product_attention(q, k, v, dropout_p=self.p)"),
    (ATTENTION, "if not self.training:\n    return q\nreturn flash_attn_func(q, k, v, self.p)"),
    (ATTENTION, "return F.scaled_dot_product_attention(q, k, v, dropout_p=p)"),
    (ATTENTION, "return F.scaled_dot_product_attention(q, k, v, dropout_p=self.rate())"),
    (ATTENTION, "return F.scaled_dot_product_attention(q, k, v, dropout_p=self.zero)"),
    (ATTENTION, "return F.scaled_dot_product_attention(q, k, v, dropout_p=self.training * self.p)"),
    (ATTENTION, f"return {MULTI_HEAD}self.p, w, b, self.training)"),
    (ATTENTION, f"return {MULTI_HEAD}0, w, b)"),
    (LAYER, "if self.training:\n    x = nn.Dropout(self.p)(x)\nreturn x"),
    (LAYER, "return nn.Dropout(self.p).train(self.training)(x)"),
    (LAYER, "drop = nn.Dropout(self.p)\ndrop.training = self.training\nreturn drop(x)"),
    (LAYER, "self.layers = nn.Sequential(self.fc, nn.Dropout(self.p))\nreturn x"),
    (LAYER, "if self.drop is None:\n    self.drop = nn.Dropout(self.p)\nreturn self.drop(x)"),
    (LAYER, "def build():\n    return nn.Dropout(self.p)\nreturn build"),
    (LAYER, "return nn.Dropout(0.0)(x)"),
    (LAYER, "return nn.Dropout(self.p if self.training else 0.0)(x)"),
    (OVERRIDE, TRAIN + "return super().train(mode)"),
    (OVERRIDE, TRAIN + "super(Backbone, self).train(mode)\n    return self"),
    (OVERRIDE, TRAIN + "nn.Module.train(self, mode)\n    return self"),
    (OVERRIDE, TRAIN + "for m in self.children():\n        m.train(mode)\n    return self"),
    (OVERRIDE, TRAIN + "self.drop.train(mode)\n    self.training = mode\n    return self"),
    (OVERRIDE, TRAIN + "return self"),
    (OVERRIDE, TRAIN + "raise NotImplementedError"),
    (OVERRIDE, "def train(self, loader, epochs=3):\n    self.done = True"),
    (OVERRIDE, "def train(self):\n    self.done = True"),
    (OVERRIDE, "def eval(self):\n    with torch.no_grad():\n        self.best = self(self.sample)"),
    (AGENT, TRAIN + "self.training = mode"),
    (SCRIPT, "trainer.training = False"),
    (SCRIPT, "model.eval()\nmodel.training = False"),
    (SCRIPT, "model.eval()\nmodel.training = True\nloss = model(x)\nmodel.training = False"),
    (SCRIPT, "was = model.training\nmodel.eval()\nmodel.training = was"),
    (SCRIPT, "for module in model.modules():\n    module.training = False"),
    (SCRIPT, "# the flag of the wrapper only\nmodel.training = False"),
    (SCRIPT, "model.training = True\nreturn model(x)"),
    (SCRIPT, "layer = nn.Dropout(0.5)\nlayer.training = False"),
    (SCRIPT, "model.bn.training = False"),
    ("import tensorflow as tf\n" + SCRIPT, "model.training = False"),
]


def codes(source, hole):
    """The codes found in `source` with the lines of `hole` in it, as deep as its braces stand."""
    indent = " " * (len(before := source[: source.index("{}")]) - before.rindex("\n") - 1)
    text = Text((HEAD + source.replace("{}", hole.replace("\n", "\n" + indent))).encode())
    return {finding.code for finding in check(read("example.py", text), RULES)}


@pytest.mark.parametrize(("code", "source", "hole"), BAD)
def test_the_misuse_is_found_in_variants_of_the_code(code, source, hole):
    assert code in codes(source, hole)


@pytest.mark.parametrize(("source", "hole"), GOOD)
def test_what_follows_the_mode_is_clean(source, hole):
    assert not codes(source, hole) & {"DRP101", "DRP102", "DRP103", "DRP104", "DRP106", "DRP109", "DRP110"}
