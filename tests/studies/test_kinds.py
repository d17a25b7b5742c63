"""Where dropout is put into a model, at which rate, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import dropkit.nn as layers
from dropkit import mc
from dropkit.studies.kinds import KINDS, find_sites, place_dropout
from dropkit.studies.setting import BASELINE, Setting

# Noise has a standard deviation instead of a rate.
NAMES = (*KINDS, *(record.name for record in layers.LAYERS if record.name != "GaussianNoise"))


def with_dropout():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.4),
                         nn.Linear(8, 2))  # fmt: skip


def without_dropout():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


class Holders(nn.Module):
    """Rates inside a recurrent network, inside attention, in a function and in a layer."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 8, 2, dropout=0.3, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.dropout = 0.1
        self.layer = nn.Dropout(0.4)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        x, _ = self.rnn(x)
        x, _ = self.attention(x, x, x)
        x = F.dropout(x, self.dropout, self.training)
        return self.output(self.layer(x[:, -1]))


def rates(model):
    return [model.rnn.dropout, model.attention.dropout, model.dropout, model.layer.p]


@pytest.mark.filterwarnings("ignore:dropout.d. Received a 2-D input")
@pytest.mark.parametrize("make", [with_dropout, without_dropout])
@pytest.mark.parametrize("kind", NAMES)
def test_every_kind_drops(kind, make):
    """In training the output differs from that without dropout, and Monte Carlo dropout has something to sample."""
    x = torch.randn(6, 4)
    plain, model = make(), make()
    model.load_state_dict(plain.state_dict())

    place_dropout(model, Setting(kind, 0.5), x[:2]).train()

    assert not torch.equal(model(x), place_dropout(plain, BASELINE).train()(x))
    mc.predict(model, x, 2, "regression", seed=0)


@pytest.mark.parametrize("make", [with_dropout, without_dropout])
def test_the_baseline_has_no_dropout(make):
    """Training and evaluation mode compute the same, and Monte Carlo dropout finds nothing to sample."""
    model, x = place_dropout(make(), BASELINE), torch.randn(6, 4)

    assert torch.equal(model.train()(x), model.eval()(x))
    with pytest.raises(mc.NothingToSample):
        mc.predict(model, x, 1, "regression", seed=0)


def test_rates_inside_modules_and_of_functions_are_set():
    """Attention, recurrent networks and functions get the rate of the setting, and none with the baseline."""
    x = torch.randn(6, 3, 4)
    assert set(find_sites(Holders(), x[:2])) == {"rnn", "attention", "layer", "dropout"}
    assert rates(place_dropout(Holders(), BASELINE, x[:2])) == [0.0] * 4
    assert rates(place_dropout(Holders(), Setting("dropout", 0.5), x[:2])) == [0.5] * 4
    assert rates(place_dropout(Holders(), Setting("dropout", 0.5, ("attention",)), x[:2])) == [0.0, 0.5, 0.0, 0.0]
    model = place_dropout(Holders(), Setting("AlphaDropout", 0.5), x[:2])
    assert type(model.layer) is layers.AlphaDropout
    assert rates(model) == [0.5] * 4


def test_a_kind_that_no_site_can_have_is_refused():
    """Where all dropout is inside of modules, another kind would be the same training under another name."""
    with pytest.raises(ValueError, match="kind must be dropout, since all dropout of the model is inside attention"):
        place_dropout(Holders(), Setting("always-on", 0.5, ("rnn", "attention")))


@given(st.permutations(["rnn", "attention", "layer", "dropout"]), st.lists(st.floats(0, 1), min_size=4, max_size=4))
@settings(max_examples=20, deadline=None)
def test_each_site_gets_its_own_rate(sites, p):
    """In whatever order the sites are named."""
    model = place_dropout(Holders(), Setting("dropout", tuple(p), tuple(sites)))

    assert dict(zip(sites, p, strict=True)) == dict(
        zip(["rnn", "attention", "dropout", "layer"], rates(model), strict=True)
    )


@given(st.permutations(["1", "before 4", "3"]), st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
@settings(max_examples=10, deadline=None)
def test_new_dropout_gets_the_rate_of_its_site(sites, p):
    """After a module, or before it."""
    model = place_dropout(without_dropout(), Setting("dropout", tuple(p), tuple(sites)))

    found = {"1": model[1].dropout_after.p, "3": model[3].dropout_after.p, "before 4": model[4].dropout_before.p}
    assert found == dict(zip(sites, p, strict=True))


@pytest.mark.parametrize("make", [with_dropout, without_dropout])
def test_batchwise_dropout_drops_hidden_units_once(make):
    """Units are zero for the whole batch, and the others scaled by 1 / (1 - p), not by its square."""
    wide = nn.Sequential(
        nn.Linear(4, 512), nn.ReLU(), *([nn.Dropout()] if make is with_dropout else []), nn.Linear(512, 1)
    )
    model = place_dropout(wide, Setting("batchwise", 0.5), torch.randn(2, 4)).train()
    with torch.no_grad():
        for linear, weight, bias in ((model[0], 0.0, 1.0), (model[-1], 1.0, 0.0)):
            linear.weight.fill_(weight)
            linear.bias.fill_(bias)

        kept = model(torch.randn(5, 4))[:, 0] / 2

    assert torch.equal(kept, kept[:1].expand(5))
    assert abs(kept[0] - 256) < 5 * (512 * 0.25) ** 0.5
    assert kept[0] == kept[0].round()


def test_batchwise_dropout_outside_of_blocks_is_that_of_elements():
    """Activations that no feed-forward block has keep their dropout."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))

    place_dropout(model, Setting("batchwise", 0.5), torch.randn(2, 1, 4, 4))

    assert type(model).__name__ == "BatchwiseSequential"
    assert model[1].dropout_after.p == 0.5
    assert not hasattr(model[4], "dropout_after")


class Functional(nn.Module):
    """No module that drops or activates."""

    def __init__(self):
        super().__init__()
        self.hidden, self.output = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.output(F.relu(self.hidden(x)))


@pytest.mark.parametrize(
    ("make", "setting", "message"),
    [
        (Functional, Setting("dropout", 0.5), "sites must be names, since the model has no dropout, nor activations"),
        (with_dropout, Setting("dropout", 0.5, ("7",)), "names of modules.*dropouts of the model: 2, 5.*'7'"),
        (Holders, Setting("dropout", 0.5, ("atention",)), "did you mean attention?"),
        (Functional, Setting("batchwise", 0.5, ("hidden",)), "sites must be all"),
        (with_dropout, Setting("dropuot", 0.5), "kind must be dropout, .*did you mean dropout?"),
        (lambda: nn.Linear(4, 4), Setting("dropout", 0.5), "sites must be names"),
    ],
    ids=["functions only", "no such module", "misspelt", "batchwise sites", "no such kind", "one layer"],
)  # fmt: skip
def test_what_cannot_be_placed_is_refused(make, setting, message):
    """A setting never comes to nothing in silence."""
    with pytest.raises(ValueError, match=message):
        place_dropout(make(), setting, torch.randn(2, 4) if make is not Holders else torch.randn(2, 3, 4))
