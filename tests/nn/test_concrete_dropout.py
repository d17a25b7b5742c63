"""ConcreteDropout against the formulas of its paper."""

import math

import pytest
import torch
from torch import nn

import dropkit
from dropkit import mc
from dropkit.functional import concrete_dropout, dropout
from dropkit.nn import ConcreteDropout, concrete_regularization
from dropkit.schedules import Constant, RateSchedule
from dropkit.trace import Phase


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_relaxed_mask_is_that_of_dropout(p):
    """Under one key an element counts as dropped where `dropout` drops it; a temperature near 0 gives its output."""
    x = torch.rand(64, 32) + 1

    soft, hard = concrete_dropout(x, p, key=7), dropout(x, p, key=7)
    cold = concrete_dropout(x, p, key=7, temperature=1e-9)

    assert torch.equal(soft * (1 - p) / x > 0.5, hard != 0)
    torch.testing.assert_close(cold, hard)


def test_the_mask_is_the_formula_of_the_paper():
    """k = 1 - sigmoid((log p - log(1 - p) + log v - log(1 - v)) / t) with v = 1 - u, and its gradient by p."""
    x = torch.linspace(1, 2, 24, dtype=torch.float64)
    p = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    # What the layer draws: at p = 1/2 and t = 1 the mask is the number itself.
    v = 1 - concrete_dropout(torch.ones_like(x), 0.5, key=5, temperature=1.0) / 2
    dropped = torch.sigmoid((p.log() - (1 - p).log() + v.log() - (1 - v).log()) / 0.1)
    expected = x * (1 - dropped) / (1 - p)

    output = concrete_dropout(x, p, key=5)

    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), p, retain_graph=True) for y in (output, expected)))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_rates_of_0_and_1_are_exact(p):
    """They keep and drop everything, and no derivative is infinite or NaN."""
    layer = ConcreteDropout(nn.Linear(4, 4))
    layer.p = p
    seen = []
    layer.layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))

    loss = layer(torch.ones(3, 4)).sum() + layer.regularization()
    loss.backward()

    assert torch.equal(seen[0], torch.full((3, 4), 1 - p))
    assert layer.p_logit.grad == 0


def test_regularization_is_that_of_the_paper():
    """l^2 (1 - p) / 2 |M|^2 - K H(p), by N, with M = W / (1 - p), summed over layers, with its gradients."""
    torch.manual_seed(0)
    linear, conv = nn.Linear(7, 5).double(), nn.Conv2d(4, 6, 3).double()
    factors = {"weight_regularizer": 0.3**2 / (2 * 50), "dropout_regularizer": 1 / 50}
    model = nn.ModuleList([ConcreteDropout(linear, 0.2, **factors), ConcreteDropout(conv, 0.6, **factors)]).double()

    value = concrete_regularization(model)

    expected = 0.0
    for weight, units, p in ((linear.weight, 7, 0.2), (conv.weight, 4, 0.6)):
        entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
        expected += (0.3**2 * (1 - p) / 2 * (weight / (1 - p)).square().sum() - units * entropy) / 50
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)  # the rate was a float32 before .double()
    parameters = (model[0].p_logit, linear.weight)
    assert torch.autograd.gradcheck(lambda *_: concrete_regularization(model), parameters)


def test_rates_are_learned():
    """Small weights let the entropy draw a rate up to 1/2; inputs that must not be lost draw it down."""
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    rates = []
    for scale in (0.0, 1.0):
        layer = ConcreteDropout(nn.Linear(8, 8, bias=False), 0.3, dropout_regularizer=1 / 256)
        layer.layer.weight.requires_grad_(False).copy_(scale * torch.eye(8))
        optimizer = torch.optim.Adam([layer.p_logit], lr=0.1)
        for step in range(40):
            optimizer.zero_grad()
            error = (layer(x, key=step) - x).square().sum(1).mean() / 2
            (error * scale + layer.regularization()).backward()
            optimizer.step()
        rates.append(layer.p)

    assert abs(rates[0] - 0.5) < 0.1
    assert rates[1] < 0.1


def test_monte_carlo_samples_it():
    """mc.sampling switches it on; in mc.predict an input's mask does not depend on the batch that it is in."""
    model, x = nn.Sequential(ConcreteDropout(nn.Linear(6, 3), 0.4)).eval(), torch.randn(8, 6)
    plain = model(x)

    with mc.sampling():
        one, two = model(x), model(x)
    whole, halves = (
        mc.predict(model, list(x.split(size)), samples=3, task="regression", masks="input", seed=1) for size in (8, 4)
    )

    assert len({tuple(y.flatten().tolist()) for y in (plain, one, two)}) == 3
    torch.testing.assert_close(whole.mean, halves.mean)
    assert (whole.variance > 0).all()


def test_other_layers_are_refused():
    """Errors name the argument, what it must be and what came."""
    with pytest.raises(ValueError, match="model must be one with ConcreteDropout layers, got Linear"):
        concrete_regularization(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="layer must be linear or a convolution to be regularised, got Identity"):
        concrete_regularization(ConcreteDropout(nn.Identity()))
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        ConcreteDropout(nn.Identity(), temperature=0)
    with pytest.raises(ValueError, match="p must be below 1, since a rate of 1 has no gradient, got 1"):
        ConcreteDropout(nn.Identity(), p=1.0)


def test_its_rate_is_no_site_of_a_schedule():
    """A schedule moves the other rates of a model, and leaves what the optimizer learns alone."""
    model = nn.Sequential(ConcreteDropout(nn.Linear(2, 2), 0.3), nn.Dropout(0.5))

    RateSchedule(model, Constant(0.5)).step()

    assert model[1].p == 0.25
    assert model[0].p == pytest.approx(0.3)


@pytest.mark.parametrize("key", [None, 3], ids=["drawn", "given"])
def test_an_audit_follows_it(key):
    """Its site is active in training alone, and lies between the layers around it; unused output is reported."""

    class Model(nn.Module):
        def __init__(self, uses_output):
            super().__init__()
            self.first, self.last, self.uses_output = nn.Linear(6, 6), nn.Linear(6, 3), uses_output

        def forward(self, x):
            x = self.first(x)
            dropped = concrete_dropout(x, 0.4, self.training, key=key)
            return self.last(dropped if self.uses_output else x)

    good, bad = (dropkit.audit(Model(uses_output), torch.randn(8, 6)) for uses_output in (True, False))

    (site,) = good.sites
    assert (site.kind, site.visits[0].p, site.visits[0].origin.last) == ("concrete_dropout", 0.4, "Linear")
    assert site.visits[0].consumers == ["Linear"]
    assert site.was_active(Phase.TRAIN) > site.was_active(Phase.EVAL)
    assert [[finding.code for finding in report.findings] for report in (good, bad)] == [[], ["DRP201"]]
