"""LayerDrop is a site, whoever wrote it, and dropouts of the layers that a run skips are said to be skipped."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dropkit
from dropkit.auditor import Auditor
from dropkit.trace import Phase

X, N, P = torch.randn(4, 8), 12, 0.5


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.drop = nn.Linear(8, 8), nn.Dropout(0.1)

    def forward(self, x):
        return x + F.dropout(self.drop(self.linear(x)).sin(), 0.1, self.training)


def layers():
    return [Layer() for _ in range(N)]


class Iterated(nn.Module):
    """Runs the layers that its list yields."""

    def __init__(self, make):
        super().__init__()
        self.layers = make(layers())

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class LayerDropModuleList(nn.ModuleList):
    """As in fairseq."""

    def __init__(self, modules):
        super().__init__(modules)
        self.p = P

    def __iter__(self):
        chances = torch.empty(len(self)).uniform_()
        for chance, layer in zip(chances, super().__iter__(), strict=True):
            if not self.training or chance > self.p:
                yield layer


class ByHand(nn.Module):
    """As in transformers: one random number for each layer."""

    def __init__(self, draw):
        super().__init__()
        self.layers, self.layerdrop, self.draw = nn.ModuleList(layers()), P, draw

    def forward(self, x):
        for layer in self.layers:
            if not self.training or self.draw() >= self.layerdrop:
                x = layer(x)
        return x


class Configured(ByHand):
    """The rate is part of a configuration."""

    def __init__(self, draw):
        super().__init__(draw)
        self.config = nn.Module()
        self.config.encoder_layerdrop = P


MODELS = {
    "dropkit": lambda: Iterated(lambda layers: dropkit.nn.LayerDrop(layers, P)),
    "fairseq": lambda: Iterated(LayerDropModuleList),
    "torch.rand": lambda: ByHand(lambda: torch.rand([])),
    "item": lambda: ByHand(lambda: torch.rand(1).item()),
    "list": lambda: ByHand(lambda: torch.rand(1).tolist()[0]),
    "random": lambda: ByHand(random.random),
    "numpy": lambda: ByHand(lambda: np.random.uniform(0, 1)),
    "config": lambda: Configured(lambda: torch.rand([])),
}
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


@each_model
@pytest.mark.parametrize("seed", [1, 2])
def test_layer_drop_is_a_site_with_the_rate_of_its_layers(model, seed):
    """Before the sites inside; one mask element for each layer, as many dropped as did not run."""
    report = Auditor(seed=seed).audit(model(), X)

    first, *inside = report.sites
    (visit,) = first.visits_in(Phase.TRAIN)
    assert (first.name, first.kind, first.p, visit.mask_elements) == ("layers", "LayerDrop", P, N)
    assert visit.dropped == N - len({site.name for site in inside if site.is_module and site.was_active(Phase.TRAIN)})
    assert all(site.name.startswith("layers.") for site in inside)
    assert report.rows[0].granularity == "layer"
    assert report.other_random == ()
    assert report.findings == ()


@each_model
def test_sites_of_skipped_layers_are_not_called_inactive(model):
    """Another run reaches them."""
    report = Auditor(seed=1).audit(model(), X)

    skipped = [row for site, row in zip(report.sites, report.rows, strict=True) if site.was_skipped]
    assert 0 < len(skipped) < 2 * N
    assert {row.active_in for row in skipped} == {"skipped in this run"}
    assert {row.active_in for row in report.rows if row not in skipped} == {"train"}
    assert f"{len(skipped)} sites skipped in this run" in report.table()


def test_a_block_that_skips_itself_is_a_site():
    """Stochastic depth of a whole branch, decided in Python."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Layer()

        def forward(self, x):
            return x if self.training and torch.rand(1) < P else self.layer(x)

    report = Auditor(seed=1).audit(nn.Sequential(*(Block() for _ in range(N))), X)

    blocks = [site for site in report.sites if site.kind == "LayerDrop"]
    assert 0 < len(blocks) < N
    assert all(site.visits[0].dropped == site.visits[0].mask_elements == 1 for site in blocks)


class Early(nn.Module):
    """Has a head that only evaluation uses, and no random choice."""

    def __init__(self, noise):
        super().__init__()
        self.layers, self.noise = nn.ModuleList(layers()), noise

    def forward(self, x):
        for layer in self.layers if not self.training else list(self.layers)[:3]:
            x = layer(x)
        return x + self.noise()


@pytest.mark.parametrize("noise", [lambda: 0, lambda: torch.randn(8)], ids=["no noise", "noise that nothing reads"])
def test_layers_that_no_random_number_skips_are_no_layer_drop(noise):
    """That evaluation runs more than training is not enough."""
    report = dropkit.audit(Early(noise), X)

    assert "LayerDrop" not in {site.kind for site in report.sites}


def test_a_layer_drop_that_skips_nothing_is_a_site():
    """Its rate shows it."""
    model = ByHand(lambda: torch.rand([]))
    model.layerdrop = 1e-9

    report = dropkit.audit(model, X)

    assert (report.sites[0].kind, report.sites[0].rate) == ("LayerDrop", 0)
