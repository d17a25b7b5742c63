"""predict and sampling: another rate of dropout, and dropout in named modules alone."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropkit.mc import NothingToSample, predict, sampling

X = torch.randn(14, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(14, 6, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A perceptron with two dropouts of one rate."""

    def __init__(self, p: float = 0.4) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first, self.drop = nn.Linear(8, 16), nn.Dropout(p)
            self.hidden, self.last_drop, self.last = nn.Linear(16, 16), nn.Dropout(p), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(F.relu(self.first(x)))
        return self.last(self.last_drop(F.relu(self.hidden(h))))


def run(model: nn.Module, x: Any = X, **settings: Any) -> Any:
    return predict(model.eval(), x, 12, **{"seed": 1, "progress": False, **settings})


def test_another_rate_is_that_of_every_dropout() -> None:
    """Also of a model whose rate is 0; the result is that of a model with this rate."""
    expected = run(Net(p=0.25), keep_samples=True).samples

    for p in (0.0, 0.4):
        assert torch.equal(run(Net(p=p), p=0.25, keep_samples=True).samples, expected)
    with pytest.raises(NothingToSample):
        run(Net(p=0.0))
    with pytest.raises(ValueError, match=r"p must be in \(0, 1\), got 1"):
        run(Net(), p=1)


def test_another_rate_reaches_recurrent_networks_and_attention() -> None:
    """The rates of torch's modules that drop inside."""
    lstm = nn.Sequential(nn.LSTM(8, 8, 2, batch_first=True)).eval()
    layers = [nn.TransformerEncoderLayer(8, 2, 16, p, batch_first=True) for p in (0.1, 0.3)]
    layers[1].load_state_dict(layers[0].state_dict())

    assert run(lstm, TOKENS, task="regression", p=0.5).variance.max() > 0
    first, second = (run(nn.Sequential(layer), TOKENS, task="regression", p=0.3) for layer in layers)
    assert torch.equal(first.variance, second.variance)


class Attention(nn.Module):
    """Attention whose rate was 0 at training."""

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.0)


class Multihead(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(8, 2, batch_first=True), need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


@pytest.mark.parametrize("make", [Attention, lambda: Multihead(True), lambda: Multihead(False)])
def test_another_rate_reaches_attention_of_rate_0(make: Any) -> None:
    """By `predict` as by `sampling`; the fraction of weights is p: with one key, of a weight of 1, all or nothing."""
    model = nn.Sequential(make()).eval()
    with pytest.raises(NothingToSample):
        run(model, TOKENS, task="regression")

    assert run(model, TOKENS, task="regression", p=0.3).variance.max() > 0
    with torch.no_grad(), sampling(p=0.3):
        assert (model(TOKENS) != model(TOKENS)).any()
        single = torch.ones(2000, 1, 8)
        kept = (model(single) - model(0 * single)).abs().amax((1, 2)) if make is Attention else None
    if kept is not None:
        assert abs((kept > 0).double().mean().item() - 0.7) < 5 * (0.3 * 0.7 / 2000) ** 0.5


class Unreached(nn.Module):
    """Attention without a rate, a recurrent network of one layer, and a mask of its own."""

    def __init__(self, own_mask: bool) -> None:
        super().__init__()
        self.gru, self.own_mask = nn.GRU(8, 8, batch_first=True), own_mask

    def forward(self, x: Tensor) -> Tensor:
        x = F.scaled_dot_product_attention(x, x, x) + self.gru(x)[0]
        return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.own_mask else x


def test_what_another_rate_does_not_reach_is_named() -> None:
    """In the error if nothing else drops, else in a note or a warning; without `p` there is none."""
    words = [
        "p does not reach scaled_dot_product_attention, which is called without dropout_p",
        "p does not reach gru of one layer, which has no dropout",
    ]
    model = Unreached(False).eval()
    with pytest.raises(NothingToSample) as by_predict:
        run(model, TOKENS, task="regression", p=0.3)
    with pytest.raises(NothingToSample) as by_sampling, sampling(p=0.3):
        model(TOKENS)
    assert all(word in str(raised.value) for word in words for raised in (by_predict, by_sampling))

    notes = run(Unreached(True), TOKENS, task="regression", p=0.3).notes
    assert [*words, "p does not reach masks that the model makes itself"] == list(notes[-3:])
    assert not run(Unreached(True), TOKENS, task="regression").notes
    with pytest.warns(UserWarning, match="p does not reach") as warned, sampling(p=0.3):
        Unreached(True)(TOKENS)
    assert [str(warning.message) for warning in warned] == list(notes[-3:])


def test_a_loop_of_ones_own_chooses_dropout_as_predict_does() -> None:
    """`sampling` takes rate and names; blocks nest, and the inner one counts."""
    model = nn.Sequential(nn.Dropout(0.1), nn.Tanh(), nn.Dropout(0.2)).eval()
    ones = torch.ones(1, 4000)

    def dropped() -> list[float]:
        first, second = model[0](ones), model[2](ones)
        return [(part == 0).double().mean().item() for part in (first, second)]

    with sampling(model, p=0.4, sites="2"):
        rates = [dropped()]
        with sampling(model, sites="0"):
            rates.append(dropped())
        rates.append(dropped())

    expected = torch.tensor([[0, 0.4], [0.1, 0], [0, 0.4]], dtype=torch.float64)
    bound = 5 * (expected * (1 - expected) / ones.numel()).sqrt()
    assert bool(((torch.tensor(rates, dtype=torch.float64) - expected).abs() <= bound).all())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"p": 1.0}, ValueError, r"p must be in \(0, 1\), got 1.0"),
        ({"sites": "head"}, TypeError, r"model must be a torch.nn.Module, got NoneType"),
        ({"p": "0.5"}, ValueError, r"p must be in \(0, 1\), got 0.5"),
        ({"model": nn.Dropout(), "sites": "head"}, ValueError, "sites must be names of modules"),
        ({"model": nn.Dropout(), "sites": nn.Dropout()}, TypeError, "sites must be names of modules.*got Dropout"),
    ],
)
def test_a_choice_that_is_none_is_refused(arguments: Any, error: type[Exception], words: str) -> None:
    """At the beginning of the block."""
    with pytest.raises(error, match=words), sampling(**arguments):
        pytest.fail("the block must not begin")


def test_sites_of_another_thread_do_not_count() -> None:
    """Hooks of a block that is open in another thread do not switch dropout on in this one."""
    model = nn.Sequential(nn.Dropout(), nn.Tanh(), nn.Dropout()).eval()
    ones = torch.ones(1, 100)
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with sampling(model, sites="0"):
            model(ones)
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(30)
    with sampling(model, sites="2"):
        assert torch.equal(model[0](ones), ones)
        assert (model[2](ones) == 0).any()
    done.set()
    thread.join()


@pytest.mark.parametrize("sites", ["last_drop", "last*", ["last_drop"]])
def test_dropout_may_be_active_in_named_modules_alone(sites: Any) -> None:
    """The result is that of a model whose other dropouts have rate 0."""
    other = Net()
    other.drop.p = 0.0

    assert torch.equal(run(Net(), sites=sites, keep_samples=True).samples, run(other, keep_samples=True).samples)


class Block(nn.Module):
    """Dropout by function and by a mask of its own, both by its own flag."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.3, self.training)
        return x * torch.bernoulli(torch.full_like(x, 0.5)) * 2 if self.training else x


def test_named_modules_hold_their_functions_and_their_own_masks() -> None:
    """All others are in evaluation mode; the flags and hooks of modules are as before."""
    model = nn.ModuleDict({"a": Block(), "b": Block()})
    both = nn.Sequential(model["a"], nn.Tanh(), model["b"])

    first = run(both, sites="0", task="regression", keep_samples=True).samples
    single = run(nn.Sequential(Block(), nn.Tanh()), task="regression", keep_samples=True).samples

    assert torch.equal(first, single)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in both.modules())
    assert torch.equal(both.eval()(X), X.tanh())


def test_modules_that_do_not_exist_are_refused() -> None:
    """The error names close ones; a module without dropout has nothing to sample."""
    with pytest.raises(ValueError, match=r"sites must be names of modules.*'last_drp'; did you mean last_drop\?"):
        run(Net(), sites="last_drp")
    with pytest.raises(NothingToSample, match="none that can be seen in sites"):
        run(Net(), sites="first")
