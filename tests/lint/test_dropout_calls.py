"""The one record of each dropout in a file: its form, its kind and its arguments."""

import ast

import pytest

from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_calls, dropout_kind, rates
from dropkit.lint.semantic.model import read
from dropkit.lint.semantic.source_text import Text

PROGRAM = """
import torch
import torch.nn.functional as F
from timm.layers import DropPath as Skip
from torch import nn
from torch.nn import Dropout2d as Zap


class Net(nn.Module):
    def __init__(self, p, wide):
        super().__init__()
        self.layer = Zap(p, True)
        self.either = nn.Dropout(p) if wide else Zap(p)
        self.skip = Skip(0.1)
        self.rnn = nn.LSTM(8, 8, 2, dropout=p)
        self.other = nn.Linear(8, 8)

    def forward(self, x):
        {}
"""


def index(line):
    return read("example.py", Text(PROGRAM.replace("{}", line).encode()))


@pytest.mark.parametrize(
    ("call", "form", "kind", "p"),
    [
        ("F.dropout(x, 0.3)", DropoutForm.FUNCTION, "Dropout", "0.3"),
        ("F.dropout2d(x)", DropoutForm.FUNCTION, "Dropout2d", None),
        ("torch.dropout(x, 0.3, True)", DropoutForm.FUNCTION, None, "0.3"),
        ("F.scaled_dot_product_attention(x, x, x, dropout_p=0.3)", DropoutForm.ATTENTION, None, "0.3"),
        ("self.layer(x)", DropoutForm.APPLICATION, "Dropout2d", None),
        ("self.either(x)", DropoutForm.APPLICATION, None, None),
        ("self.skip(x)", DropoutForm.APPLICATION, None, None),
        ("nn.Dropout(0.3)(x)", DropoutForm.PER_CALL, "Dropout", None),
    ],
)
def test_a_call_is_known_by_form_and_kind(call, form, kind, p):
    source = index(f"return {call}")

    dropout = dropout_calls(source)[-1 if form is not DropoutForm.PER_CALL else -2]

    assert (dropout.form, dropout.kind, dropout.p and ast.unparse(dropout.p)) == (form, kind, p)
    assert ast.unparse(dropout.call) == call


def test_layers_are_known_where_they_are_made():
    source = index("return x")

    made = [(dropout.form, dropout.name) for dropout in dropout_calls(source)]

    assert made == [
        (DropoutForm.LAYER, "torch.nn.Dropout2d"),
        (DropoutForm.LAYER, "torch.nn.Dropout"),
        (DropoutForm.LAYER, "torch.nn.Dropout2d"),
        (DropoutForm.LAYER, "timm.layers.DropPath"),
        (DropoutForm.HOLDER, "torch.nn.LSTM"),
    ]


@pytest.mark.parametrize("call", ["self.other(x)", "self.unknown(x)", "x.dropout()", "dropout(x)", "self.dropout(x)"])
def test_a_name_alone_makes_no_dropout(call):
    assert len(dropout_calls(index(f"return {call}"))) == len(dropout_calls(index("return x")))


@pytest.mark.parametrize(
    ("call", "kind"), [("F.dropout(x, 0)", None), ("F.dropout(x, p=0.0)", None), ("F.dropout(x, x)", "Dropout")]
)
def test_a_rate_of_zero_drops_nothing(call, kind):
    source = index(f"return {call}")

    assert dropout_kind(source, dropout_calls(source)[-1].call) == kind


def test_an_application_works_in_place_if_its_layer_does():
    source = index("return self.layer(x), self.either(x)")

    in_place = {ast.unparse(d.call): d.works_in_place for d in dropout_calls(source, DropoutForm.APPLICATION)}

    assert in_place == {"self.layer(x)": True, "self.either(x)": False}


def test_rates_are_those_whose_meaning_is_known():
    """Not that of another library's DropPath, which may be the rate to keep."""
    assert [ast.unparse(rate) for _, rate in rates(index("return x"))] == ["p", "p", "p", "p"]
