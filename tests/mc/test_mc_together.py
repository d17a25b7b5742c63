"""A single input: several samples run together in one pass, with the outputs of passes of their own."""

import pytest
import torch
from torch import nn

from dropkit import mc
from dropkit.mc.batch_dim import tolerance_of
from dropkit.mc.together import TogetherMode


class Counting(nn.Sequential):
    """Counts its passes."""

    passes = 0

    def forward(self, x):
        self.passes += 1
        return super().forward(x)


class Reading(Counting):
    """Branches on the values."""

    def forward(self, x):
        y = super().forward(x)
        return y if bool(y.sum() > 0) else -y


class Mixing(Counting):
    """Computes inputs from one another."""

    def forward(self, x):
        return super().forward(x).cumsum(0)


class Centred(Counting):
    """Subtracts the mean of several inputs."""

    def forward(self, x):
        y = super().forward(x)
        return y - y.mean(0) * (len(y) > 1)


class Handmade(Counting):
    """Makes its own mask."""

    def forward(self, x):
        y = super().forward(x)
        return y * (torch.rand(y.shape[-1]) < 0.5)


def layers(drop=None, width=16):
    torch.manual_seed(0)
    drop = drop or nn.Dropout(0.5)
    return nn.Linear(4, width), nn.ReLU(), drop, nn.Linear(width, width), nn.Tanh(), drop, nn.Linear(width, 3)


X = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
OPTIONS = {"seed": 0, "keep_samples": True, "plain": False, "task": "regression"}


class First(nn.Module):
    """The outputs of a recurrent network."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)[0]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_between_recurrent_layers_has_passes_of_its_own(kind, batch_first, monkeypatch):
    """The states of the next layer are those of one input, and torch reads past their end if it gets more rows."""
    model = First(kind(4, 8, 2, dropout=0.5, batch_first=batch_first)).eval()
    x = torch.randn(1, 6, 4) if batch_first else torch.randn(6, 1, 4)
    options = {**OPTIONS, "batch_dim": 0 if batch_first else 1}

    r = mc.predict(model, x, 20, **options)
    monkeypatch.setattr("dropkit.mc.passes._FEWEST_TOGETHER", 1000)
    apart = mc.predict(model, x, 20, **options)

    assert torch.equal(r.samples, apart.samples)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_before_a_recurrent_network_runs_together(kind):
    """Its states are as many as there are rows."""
    model = Counting(nn.Linear(4, 4), nn.Dropout(0.5), First(kind(4, 8, 1, batch_first=True)), nn.Flatten()).eval()

    r = mc.predict(model, torch.randn(1, 6, 4), 20, **OPTIONS)

    assert r.variance.max() > 0
    assert model.passes < 10


@pytest.mark.parametrize("drop", [nn.Dropout(0.3), nn.AlphaDropout(0.3)], ids=["Dropout", "AlphaDropout"])
def test_samples_are_those_of_single_passes(drop, monkeypatch):
    """Each row has the masks of its sample; the products may be summed in another order."""
    model = Counting(*layers(drop))
    together = mc.predict(model, X, 40, **OPTIONS)
    count, model.passes = model.passes, 0
    monkeypatch.setattr("dropkit.mc.passes._FEWEST_TOGETHER", 1000)
    apart = mc.predict(model, X, 40, **OPTIONS)

    assert (count, model.passes) == (3, 40)
    assert (together.samples - apart.samples).abs().max() <= tolerance_of(apart.samples)
    assert together.samples.var(0).min() > 0


@pytest.mark.parametrize("kind", [Reading, Mixing, Centred, Handmade], ids=lambda kind: kind.__name__)
def test_models_that_need_single_passes_get_them(kind, monkeypatch):
    """Where rows depend on one another the samples are bit for bit those of single passes."""
    model = kind(*layers())
    together = mc.predict(model, X, 20, **OPTIONS)
    monkeypatch.setattr("dropkit.mc.passes._FEWEST_TOGETHER", 1000)

    assert torch.equal(together.samples, mc.predict(model, X, 20, **OPTIONS).samples)


def test_values_are_read_in_single_passes():
    """A branch on them would be taken for all samples at once, even where it does not show in the rows compared."""
    model = Counting(*layers())
    model.register_forward_hook(lambda module, args, output: output if output.sum() > 0 else output * 1)

    mc.predict(model, X, 20, **OPTIONS)

    assert model.passes >= 20


def test_inplace_dropout_needs_single_passes():
    """Its input cannot become several rows."""
    model = Counting(*layers(nn.Dropout(0.5, inplace=True)))

    mc.predict(model, X, 20, **OPTIONS)

    assert model.passes >= 20


def test_large_tensors_run_a_few_samples_at_a_time():
    """The tensors that are dropped hold 2**16 numbers at most: 8 samples of 2**13."""
    model = Counting(*layers(width=2**13))

    mc.predict(model, X, 17, **OPTIONS)

    assert model.passes == 2 + 3


def test_the_mode_is_not_used_for_several_inputs(monkeypatch):
    """They make a batch of their own."""
    monkeypatch.setattr(TogetherMode, "drop", None)

    assert mc.predict(nn.Sequential(*layers()), X.expand(2, 4), 20, **OPTIONS).mean.shape == (2, 3)
