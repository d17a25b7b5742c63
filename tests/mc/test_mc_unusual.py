"""Unusual models and inputs: the result is that of the plain loop, or an error or a note says why it is not."""

from __future__ import annotations

import copy
import pickle
import random
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.mc_models import Calls, close
from torch import Tensor, nn

from dropkit.mc import from_samples
from dropkit.mc.predict import predict

X = torch.randn(70, 12, generator=torch.Generator().manual_seed(2))


def silu_of_view(s: Any, x: Tensor) -> Tensor:
    h = F.dropout(s.a(x), training=s.training)
    f = h.flatten(1)
    F.silu(f, inplace=True)
    return s.o(h)


def same_buffer(s: Any, x: Tensor) -> Tensor:
    return s.buffer.copy_(s.o(F.dropout(x, training=s.training)))


def writes_data(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    d = F.dropout(h, training=s.training)
    h.data.add_(d)
    return s.o(h)


@torch.inference_mode()
def inference_residual(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    h += F.dropout(torch.relu(h), training=s.training)
    return s.o(h)


def keeps_features(s: Any, x: Tensor) -> Tensor:
    s.features = {"deep": [s.a(F.dropout(x, training=s.training))]}
    return s.o(F.dropout(torch.relu(s.features["deep"][0]), training=s.training))


def adds_a_dimension(s: Any, x: Tensor) -> Tensor:
    h = F.dropout(s.a(x), training=s.training)
    h.unsqueeze_(1)
    return s.o(h.flatten(1))


def writes_out(s: Any, x: Tensor) -> Tensor:
    h, out = F.dropout(s.a(x), training=s.training), torch.empty(len(x), 16)
    torch.tanh(h, out=out)
    torch.sigmoid(s.a(x), out=h)
    return s.o(F.dropout(out, training=s.training) + h)


def writes_data_of_deferred_input(s: Any, x: Tensor) -> Tensor:
    x = F.dropout(x, 0.2, s.training).tanh() + 1
    h = s.a(x)
    x.data.mul_(2)
    return s.o(F.dropout(h, training=s.training) + s.a(x))


def changes_a_list(s: Any, x: Tensor) -> Tensor:
    order = x.mean(0).argsort().tolist()
    h = F.dropout(x, 0.1, s.training)
    order.reverse()
    return s.o(s.a(h[:, order]))


def sets_data(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    h.data = h + F.dropout(h, 0.1, s.training)
    return s.o(h)


def writes_later_inputs(s: Any, x: Tensor) -> Tensor:
    if len(x) > 3:
        x[x > 1] = 0
    x.requires_grad_()
    return s.a(F.dropout(x, training=s.training))


def derivative(s: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = F.dropout(torch.tanh(s.a(F.dropout(x, training=s.training))), training=s.training)
        return torch.autograd.grad(s.o(y).sum(), x)[0]


def buffered() -> nn.Module:
    model = Calls(same_buffer, o=nn.Linear(12, 3))
    model.register_buffer("buffer", torch.empty(70, 3))
    return model


def linears(forward: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    return Calls(forward, a=nn.Linear(12, 16), o=nn.Linear(16, 3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "pooling without a batch dimension": lambda: nn.Sequential(
        nn.Linear(12, 16), nn.Dropout(), nn.MaxPool1d(3, 1, 1), nn.Linear(16, 3)
    ),
    "in place on the inputs": lambda: nn.Sequential(nn.Dropout(0.3, inplace=True), nn.Linear(12, 3)),
    "a view that is written": lambda: linears(silu_of_view),
    "one buffer for all passes": buffered,
    "writes that torch does not count": lambda: linears(writes_data),
    "a residual in inference mode": lambda: linears(inference_residual),
    "features that are kept": lambda: linears(keeps_features),
    "a dimension added in place": lambda: linears(adds_a_dimension),
    "results written with out=": lambda: linears(writes_out),
    "writes that a deferred layer would miss": lambda: linears(writes_data_of_deferred_input),
    "a list that is changed": lambda: linears(changes_a_list),
    "data that is set": lambda: linears(sets_data),
    "inputs that are written where there are many": lambda: linears(writes_later_inputs),
    "a derivative": lambda: linears(derivative),
    "a single feature": lambda: Calls(
        lambda s, x: F.dropout(x.reshape(-1, 1), training=s.training).view(-1, 12)[:, :3], a=nn.Identity()
    ),
}


@pytest.mark.parametrize("masks", ["input", "shared"])
@pytest.mark.parametrize("name", MODELS)
def test_acceleration_changes_nothing(name, masks):
    """The result is that of the plain loop, and the inputs are not written into."""
    torch.manual_seed(1)
    model, inputs = MODELS[name]().eval(), X.clone()
    settings = {"samples": 7, "masks": masks, "seed": 6, "keep_samples": True}

    plain = predict(model, X.clone(), replay=False, thin=False, **settings)
    result = predict(model, inputs, **settings)

    assert close(result.samples, plain.samples)
    assert result.variance.amax() > 1e-4
    assert torch.equal(inputs, X)
    assert not inputs.requires_grad


RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "a slice": lambda x: x[:, (i := random.randint(0, 4)) : i + 8],
    "a list": lambda x: x[:, random.sample(range(12), 8)],
    "a tuple": lambda x: x.roll((random.randint(0, 7),), (1,))[:, :8],
    "an array": lambda x: x[:, :8] * torch.as_tensor(np.random.rand(8) < 0.5),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_that_torch_does_not_see_are_not_cached(name):
    """Each pass draws its own, and a note says that it ran in full."""
    model = Calls(lambda s, x: s.o(F.dropout(RANDOM[name](x), 0.01, s.training)), o=nn.Linear(8, 3)).eval()

    result = predict(model, X[:5], 20, seed=0, keep_samples=True)

    assert len(torch.unique(result.samples[:, 0], dim=0)) > 3
    assert any("every pass ran in full" in note for note in result.notes)


def test_a_site_may_change_its_size_with_stratified_samples():
    """A layer that is skipped at random moves the sites behind it to other tensors."""

    def forward(s: Any, x: Tensor) -> Tensor:
        if torch.rand(()) > 0.5:
            x = s.b(F.dropout(s.a(x), training=s.training))
        return s.o(F.dropout(s.c(x), training=s.training))

    for seed in range(6):
        model = Calls(forward, a=nn.Linear(12, 16), b=nn.Linear(16, 12), c=nn.Linear(12, 8), o=nn.Linear(8, 3)).eval()
        result = predict(model, X, 20, plan="stratified", masks="shared", seed=seed)
        assert torch.isfinite(result.mean).all()


class Masking(nn.Module):
    """Drops by its own flag, with a mask that it makes."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x


@pytest.mark.parametrize("how", ["a generator", "prepare_batch"])
def test_networks_that_make_the_inputs_stay_in_evaluation_mode(how):
    """Dropout is active in the model that predicts alone."""
    encoder = nn.Sequential(Masking()).eval()
    model = nn.Sequential(nn.Dropout(), nn.Linear(12, 3)).eval()
    state = torch.get_rng_state()

    if how == "prepare_batch":
        result = predict(model, X, 5, seed=0, prepare_batch=encoder)
    else:
        result = predict(model, (encoder(part) for part in X.split(10)), 5, seed=0)

    assert close(result.mean, predict(model, X, 5, seed=0).mean)
    assert torch.equal(state, torch.get_rng_state())


def test_derivatives_follow_the_mask():
    """A model that takes a derivative, by autograd or torch.func, gets 0 where an element is dropped."""

    def both(s: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = torch.ones_like(x).requires_grad_()
            y = F.dropout(x, training=s.training)
            return torch.stack([y.detach(), torch.autograd.grad(y.sum(), x)[0]], 1)

    for plan in ("iid", "stratified"):
        for masks in ("input", "shared"):
            settings = {"masks": masks, "plan": plan, "seed": 0, "keep_samples": True}
            draws = predict(Calls(both).eval(), X, 6, "regression", **settings).samples
            assert torch.equal(draws[:, :, 0], draws[:, :, 1])
            assert set(draws.unique().tolist()) == {0.0, 2.0}

    def jacobian(s: Any, x: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.jacrev(lambda row: F.dropout(row, training=s.training).sum()))(x)

    draws = predict(Calls(jacobian).eval(), X, 6, "regression", seed=0, keep_samples=True).samples
    assert set(draws.unique().tolist()) == {0.0, 2.0}


UNSEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "a distribution": lambda x: torch.distributions.Gamma(5.0, 5.0).sample((len(x), 1)),
    "an operator": lambda x: torch.ops.aten.rand_like(x),
    "noise of an activation": lambda x: F.rrelu(x, training=True),
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", UNSEEN)
def test_hidden_random_numbers_follow_the_seed(name, first):
    """They differ between passes, also before the first dropout."""

    def forward(s: Any, x: Tensor) -> Tensor:
        if first:
            return F.dropout(x * UNSEEN[name](x), 1e-6, s.training)
        return F.dropout(x, 1e-6, s.training) * UNSEEN[name](x)

    state = torch.get_rng_state()
    result, again = (predict(Calls(forward).eval(), X, 6, "regression", seed=0) for _ in range(2))

    assert torch.equal(result.mean, again.mean)
    assert (result.variance > 0).any(1).all() if name != "noise of an activation" else (result.variance > 0).any()
    assert torch.equal(state, torch.get_rng_state())
    assert any("masks depend on how inputs are batched" in note for note in result.notes)


@pytest.mark.parametrize("masks", ["input", "shared"])
def test_a_model_keeps_ordinary_tensors(masks):
    """An attribute that a pass sets, or an output that a hook keeps, is no virtual tensor afterwards."""
    model, seen = linears(keeps_features).eval(), list[Tensor]()
    model.a.register_forward_hook(lambda module, args, output: seen.append(output))

    predict(model, X, 3, masks=masks, seed=0)

    features = model.features["deep"][0]
    assert type(features) is Tensor
    torch.testing.assert_close(copy.deepcopy(model).features["deep"][0], features)
    model.a.weight.data.zero_()
    torch.testing.assert_close(pickle.loads(pickle.dumps(copy.deepcopy(seen[-1]))), features)


def test_noise_leaves_the_generators_alone():
    """Noise follows the seed, and no generator is changed, not even those of devices that are not in use."""
    model = Calls(lambda s, x: F.gumbel_softmax(x, dim=1) + torch.randn_like(x)).eval()
    state = torch.get_rng_state()

    with mock.patch("torch.cuda.manual_seed_all") as seeded:
        result, again = (predict(model, X, 5, "regression", seed=0).mean for _ in range(2))

    assert torch.equal(result, again)
    assert torch.equal(state, torch.get_rng_state())
    seeded.assert_not_called()


def test_unusual_inputs_are_accepted():
    """Empty batches, outputs of one dimension with a target error, a default dtype of float64, integers of NumPy."""
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3)).eval()
    whole = predict(model, X, 5, seed=1)
    parts = predict(model, [X[:3], X[:0], X[3:]], 5, seed=1)
    numbered = predict(model, X, 5, seed=1, example_ids=list(range(70)))
    assert close(whole.mean, parts.mean)
    assert close(whole.mean, numbered.mean)

    assert close(whole.mean, predict(model, X, np.int64(5), seed=np.int64(1)).mean)

    flat = nn.Sequential(nn.Dropout(), nn.Linear(12, 1), nn.Flatten(0)).eval()
    assert predict(flat, X, 30, "regression", target_standard_error=0.1, seed=1).sample_counts.min() >= 10

    torch.set_default_dtype(torch.float64)
    try:
        assert predict(model, X, 20, target_standard_error=0.1, seed=1).mean.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_single_rows_do_not_decide_whether_outputs_are_logits():
    """A row of logits may sum to 1 by chance, and a single logit may be 1."""
    binary = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 1)).eval()
    binary[3].weight.data.zero_()
    binary[3].bias.data.fill_(1.0)
    assert predict(binary, X, 3, batch_size=1, seed=0).mean.shape == (70, 2)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0.2, 0.7], "example_ids must be (N,) of integers, got (2,) of torch.float32"),
        ([[0], [1]], "example_ids must be (N,) of integers, got (2, 1) of torch.int64"),
        ([True, False], "example_ids must be (N,) of integers, got (2,) of torch.bool"),
        ([0, 2**32], "example_ids must be in [0, 2**32), got 0 to 4294967296"),
        ([-1, 5], "example_ids must be in [0, 2**32), got -1 to 5"),
    ],
)
def test_invalid_numbers_of_inputs_are_refused(ids, message):
    """Two inputs must not get the same masks by accident."""
    with pytest.raises(ValueError, match=re.escape(message)):
        predict(nn.Dropout().eval(), X[:2], 3, "regression", example_ids=ids)


def test_packed_sequences_are_refused():
    """The first dimension of their data is not that of the inputs."""
    packed = nn.utils.rnn.pack_sequence([X[:3], X[:2]])
    for inputs in (packed, [packed]):
        with pytest.raises(TypeError, match="got a PackedSequence"):
            predict(nn.Dropout().eval(), inputs, 3, "regression")


def test_predictions_that_are_nan_have_measures_that_are_nan():
    """They do not pass for certain."""
    result = predict(Calls(lambda s, x: F.dropout(x, training=s.training) * torch.nan).eval(), X, 5, seed=0)
    assert result.variation_ratio.isnan().all()
    assert result.entropy.isnan().all()


def test_samples_from_elsewhere_may_be_an_array():
    """An array of probabilities is accepted; an empty one, or other numbers, are not."""
    assert from_samples(np.full((2, 3, 2), 0.5)).mean.shape == (3, 2)
    with pytest.raises(ValueError, match="probabilities must be"):
        from_samples(torch.zeros(0, 3, 2))
    with pytest.raises(ValueError, match="probabilities must be of classes, with a sum of 1 over the last dimension"):
        from_samples(torch.randn(4, 3, 2))
