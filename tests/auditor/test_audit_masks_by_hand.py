"""Misuse of masks: unscaled, one for a whole batch, on both sides of a ReLU, on a mask; and what resembles it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dropkit

N, P = 32, 0.25
X, MAPS = torch.randn(N, 16), torch.randn(N, 3, 6, 6)
TOKENS = torch.cat([torch.randint(1, 20, (N, 6)), torch.zeros(N, 3, dtype=torch.long)], 1)


class Net(nn.Module):
    """A hidden layer, `then` in training mode, `otherwise` in evaluation mode, and an output layer."""

    def __init__(self, then, otherwise=lambda h: h, hidden=None, output=None):
        super().__init__()
        self.hidden = hidden or nn.Sequential(nn.Linear(16, 64), nn.ReLU())
        self.output = output or nn.Linear(64, 2)
        self.then, self.otherwise = then, otherwise

    def forward(self, x):
        h = self.hidden(x)
        return self.output(self.then(h) if self.training else self.otherwise(h))


def conv(then):
    return Net(then, hidden=nn.Conv2d(3, 64, 3), output=nn.Flatten())


def codes(model, x=X):
    return [finding.code for finding in dropkit.audit(model, x).findings]


def keep(shape, p=P):
    return (torch.rand(shape) >= p).float()


class Dropout(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.p, self.factor = P, factor

    def forward(self, x):
        return x * keep(x.shape) * self.factor if self.training else x


UNSCALED = {
    "mul": lambda h: h * keep(h.shape),
    "bool": lambda h: h * (torch.rand_like(h) >= P),
    "bernoulli": lambda h: h * torch.bernoulli(torch.full_like(h, 1 - P)),
    "where": lambda h: torch.where(torch.rand_like(h) < P, 0.0, h),
    "masked_fill": lambda h: h.masked_fill(torch.rand_like(h) < P, 0),
    "in place": lambda h: h.clone().mul_(keep(h.shape)),
    "a module": Dropout(1.0),
}
SCALED = {
    "after": lambda h: h * keep(h.shape) / (1 - P),
    "after by a factor": lambda h: h * keep(h.shape) * (1 / (1 - P)),
    "the mask": lambda h: h * (keep(h.shape) / (1 - P)),
    "before": lambda h: h / (1 - P) * keep(h.shape),
    "in place": lambda h: h.clone().mul_(keep(h.shape)).div_(1 - P),
    "by a tensor": lambda h: h * keep(h.shape) / torch.tensor(1 - P),
    "by what is kept": lambda h: h * (mask := keep(h.shape)) * mask.numel() / mask.sum(),
    "by a mask's mean": lambda h: h * (mask := keep(h.shape)) / mask.mean(),
    "where": lambda h: torch.where(torch.rand_like(h) < P, 0.0, h / (1 - P)),
    "a module": Dropout(1 / (1 - P)),
}


@pytest.mark.parametrize("drop", UNSCALED.values(), ids=UNSCALED)
def test_a_mask_that_scales_nothing_is_found(drop):
    """However it is applied."""
    assert codes(Net(drop)) == ["DRP311"]


@pytest.mark.parametrize("drop", SCALED.values(), ids=SCALED)
def test_a_mask_that_is_scaled_anywhere_is_not(drop):
    """In the mask, before it, after it, by a number that is known or measured."""
    assert codes(Net(drop)) == []


def test_scaling_in_evaluation_is_as_good():
    """As in the first publications."""
    assert codes(Net(UNSCALED["mul"], lambda h: h * (1 - P))) == []


@pytest.mark.parametrize(
    "model",
    [
        Net(lambda h: h * keep((len(h), 1))),
        Net(lambda h: h + torch.randn_like(h) * keep(h.shape)),
    ],
    ids=["whole samples", "noise at some places"],
)
def test_what_is_often_meant_to_be_unscaled_is_not_reported(model):
    """Masks of whole samples, and of noise."""
    assert "DRP311" not in codes(model)


def test_masking_noise_on_the_input_is_not_reported():
    """Denoising autoencoders do not scale it."""

    class Denoising(nn.Module):
        def __init__(self):
            super().__init__()
            self.code = nn.Linear(16, 16)

        def forward(self, x):
            return self.code(x * keep(x.shape) if self.training else x)

    assert codes(Denoising()) == []


SHARED = {
    "features": (Net(lambda h: h * keep(64) / (1 - P)), X),
    "features with a dimension": (Net(lambda h: h * keep((1, 64)) / (1 - P)), X),
    "channels": (conv(lambda h: h * keep((1, 64, 1, 1)) / (1 - P)), MAPS),
    "elements of maps": (conv(lambda h: h * keep(h.shape[1:]) / (1 - P)), MAPS),
    "features of sequences": (Net(lambda h: h * keep(64) / (1 - P)), torch.randn(N, 5, 16)),
}
SEPARATE = {
    "elements": (Net(lambda h: h * keep(h.shape) / (1 - P)), X),
    "samples": (Net(lambda h: h * keep((N, 1)) / (1 - P)), X),
    "channels": (conv(lambda h: h * keep((N, 64, 1, 1)) / (1 - P)), MAPS),
    "time first": (Net(lambda h: h * keep((1, N, 64)) / (1 - P)), torch.randn(5, N, 16)),
    "the batch as a whole": (Net(lambda h: h * keep(()) / (1 - P)), X),
    "one sample": (Net(lambda h: h * keep((1, 64)) / (1 - P)), X[:1]),
    "dropout": (Net(lambda h: F.dropout(h, P)), X),
}


@pytest.mark.parametrize(("model", "x"), SHARED.values(), ids=SHARED)
def test_one_mask_for_a_batch_is_found(model, x):
    """Whatever the rank, by hand only."""
    assert codes(model, x) == ["DRP310"]


@pytest.mark.parametrize(("model", "x"), SEPARATE.values(), ids=SEPARATE)
def test_masks_with_a_dimension_for_the_batch_are_not_reported(model, x):
    """Nor stochastic depth of a batch, and sequences with time first."""
    assert codes(model, x) == []


def test_one_mask_for_weights_is_not_reported():
    """DropConnect has one for each weight, whatever the batch."""

    class Connect(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(16, 64), nn.Linear(64, 2)

        def forward(self, x):
            weight = self.first.weight
            if self.training:
                weight = weight * keep(weight.shape) / (1 - P)
            return self.last(F.linear(x, weight))

    assert codes(Connect()) == []


class Around(nn.Module):
    """Dropout, a function, the same or another dropout."""

    def __init__(self, between, first, second):
        super().__init__()
        self.linear, self.last = nn.Linear(16, 16), nn.Linear(16, 2)
        self.between, self.first, self.second = between, first, second

    def forward(self, x):
        x = self.first(self.linear(x))
        x = self.between(x)
        return self.last(self.second(x))


@pytest.mark.parametrize("between", [nn.ReLU(), F.relu, nn.LeakyReLU(), nn.ReLU(inplace=True), torch.relu, nn.PReLU()])
@pytest.mark.parametrize("is_shared", [True, False], ids=["one layer", "two layers"])
def test_dropout_on_both_sides_of_a_relu_is_found(between, is_shared):
    """It is two dropouts on one value, since ReLU keeps zeros and scale."""
    first = nn.Dropout(P)
    second = first if is_shared else nn.Dropout(P)

    findings = dropkit.audit(Around(between, first, second), X).findings

    assert [finding.code for finding in findings if finding.code != "DRP410"] == ["DRP304"]
    assert "ReLU" in findings[0].message


@pytest.mark.parametrize("between", [nn.Linear(16, 16), nn.LayerNorm(16), lambda h: h + 1, lambda h: h + h.flip(0)])
def test_dropouts_with_a_layer_between_are_not_reported(between):
    """The second one drops from other values."""
    assert codes(Around(between, nn.Dropout(P), nn.Dropout(P))) == []


class Padded(nn.Module):
    """Drops from what `mask` makes of the tokens, and applies it by `apply`."""

    def __init__(self, mask, apply):
        super().__init__()
        self.embed, self.drop, self.output = nn.Embedding(20, 8), nn.Dropout(P), nn.Linear(8, 2)
        self.mask, self.apply_mask = mask, apply

    def forward(self, tokens):
        mask = self.drop(self.mask(tokens))
        return self.output(self.apply_mask(self.embed(tokens), mask))


def attend(x, mask):
    return F.softmax(x @ x.mT + mask[:, None, :], -1) @ x


ON_MASKS = {
    "binary, multiplied": (lambda tokens: (tokens != 0).float(), lambda x, mask: x * mask[..., None]),
    "binary, filled": (lambda t: (t == 0).float(), lambda x, mask: x.masked_fill(mask[..., None] != 0, 0)),
    "additive, -inf": (lambda t: torch.zeros(t.shape).masked_fill(t == 0, float("-inf")), attend),
    "additive, -1e9": (lambda t: (t == 0).float() * -1e9, attend),
}


@pytest.mark.parametrize(("mask", "apply"), ON_MASKS.values(), ids=ON_MASKS)
def test_dropout_on_a_mask_is_found(mask, apply):
    """Masks of zeros and ones, and those that are added to scores."""
    assert "DRP412" in codes(Padded(mask, apply), TOKENS)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Sequential(nn.Dropout(P), nn.Linear(16, 2)), (X > 0).float()),
        (nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(P), nn.Linear(16, 2)), X),
        (Padded(lambda t: torch.ones(N, 1, 8), lambda x, mask: x * mask), TOKENS),
        (Padded(lambda t: (t[:, :, None] == t[:, None]).float(), lambda x, graph: graph @ x), TOKENS),
    ],
    ids=["binary features", "ReLU", "a mask made by dropout", "a graph"],
)
def test_dropout_on_other_zeros_and_ones_is_not_reported(model, x):
    """Features, graphs, and ones that dropout turns into a mask."""
    assert codes(model, x) == []
