"""ConcreteDropout against the paper's formulas; the laws of composed layers run on it as well."""

import math

import pytest
import torch
from torch import nn

from dropkit.nn import ConcreteDropout, concrete_regularization
from dropkit.nn.random_numbers import uniform


def test_the_mask_is_the_papers():
    """The relaxed mask by the paper's formula, on uniform numbers of the key, with temperature 0.1."""
    layer, x = ConcreteDropout(nn.Linear(8, 4).double(), p=0.3), torch.randn(5, 8, dtype=torch.float64)
    layer.double()
    u, p = uniform(torch.empty(5, 8, dtype=torch.float64), key=7), layer.p
    z = torch.sigmoid((math.log(p) - math.log(1 - p) + u.log() - (1 - u).log()) / 0.1)

    torch.testing.assert_close(layer(x, key=7), layer.layer(x * (1 - z) / (1 - p)))


def test_the_regularisation_is_the_papers():
    """Weights over 1 - p, and inputs times the negative entropy; summed over a model, with a gradient for the rate."""
    layer = ConcreteDropout(nn.Linear(8, 4), 0.3, weight_regularizer=0.01, dropout_regularizer=0.1)
    squares = sum(float(weight.detach().square().sum()) for weight in layer.layer.parameters())
    expected = 0.01 * squares / 0.7 + 0.1 * 8 * (0.3 * math.log(0.3) + 0.7 * math.log(0.7))

    total = concrete_regularization(nn.Sequential(layer, nn.ReLU(), layer.layer))
    total.backward()

    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert layer.p_logit.grad != 0
    with pytest.raises(ValueError, match="model must be one with ConcreteDropout layers, got Linear"):
        concrete_regularization(nn.Linear(2, 2))


def test_the_rate_is_learned():
    """A loss that wants large outputs pulls the rate down, the entropy pulls it towards one half."""
    torch.manual_seed(0)
    rates = {}
    for name, regularizer in (("none", 0.0), ("entropy", 1.0)):
        layer = ConcreteDropout(nn.Linear(8, 1), 0.2, weight_regularizer=0.0, dropout_regularizer=regularizer)
        layer.layer.requires_grad_(False)
        target, optimizer = layer.layer(torch.ones(64, 8)), torch.optim.Adam([layer.p_logit], 0.1)
        for _ in range(40):
            optimizer.zero_grad()
            ((layer(torch.ones(64, 8)) - target).square().mean() + layer.regularization()).backward()
            optimizer.step()
        rates[name] = layer.p
    assert rates["none"] < 0.2 < rates["entropy"]


@pytest.mark.parametrize(("arguments", "text"), [({"p": 1.0}, "p must be below 1"), ({"temperature": 0}, "positive")])
def test_bad_arguments(arguments, text):
    """A rate of 1 has no gradient, and a temperature divides."""
    with pytest.raises(ValueError, match=text):
        ConcreteDropout(nn.Linear(2, 2), **arguments)
