"""Models that are unusual, but real: each way of computing gives what the plain loop gives, or says why it does not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropkit.mc import from_samples, predict

X = torch.randn(70, 12, generator=torch.Generator().manual_seed(2))


class Calls(nn.Module):
    """A forward pass in one function; `at(name, in, out)` are its layers."""

    def __init__(self, forward: Callable[[Calls, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.of = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.of(self, x)


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


def buffered() -> nn.Module:
    model = Calls(same_buffer, o=nn.Linear(12, 3))
    model.register_buffer("buffer", torch.empty(70, 3))
    return model


def linears(forward: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    return Calls(forward, a=nn.Linear(12, 16), o=nn.Linear(16, 3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "pooling of what is no batch": lambda: nn.Sequential(
        nn.Linear(12, 16), nn.Dropout(), nn.MaxPool1d(3, 1, 1), nn.Linear(16, 3)
    ),
    "in place on the inputs": lambda: nn.Sequential(nn.Dropout(0.3, inplace=True), nn.Linear(12, 3)),
    "a view that is written": lambda: linears(silu_of_view),
    "one buffer for all passes": buffered,
    "writes that are not counted": lambda: linears(writes_data),
    "a residual in inference mode": lambda: linears(inference_residual),
    "features that are one": lambda: Calls(
        lambda s, x: F.dropout(x.reshape(-1, 1), training=s.training).view(-1, 12)[:, :3], a=nn.Identity()
    ),
}


@pytest.mark.parametrize("masks", ["input", "shared"])
@pytest.mark.parametrize("name", MODELS)
def test_replay_and_cutting_change_nothing(name, masks):
    """Nor do they touch the inputs."""
    torch.manual_seed(1)
    model, inputs = MODELS[name]().eval(), X.clone()
    settings = {"samples": 7, "masks": masks, "seed": 6, "keep_samples": True}

    plain = predict(model, X.clone(), replay=False, thin=False, **settings)
    found = predict(model, inputs, **settings)

    torch.testing.assert_close(found.draws, plain.draws, rtol=1e-4, atol=1e-5)
    assert found.variance.amax() > 1e-4
    assert torch.equal(inputs, X)


RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "a slice": lambda x: x[:, (i := random.randint(0, 4)) : i + 8],
    "a list": lambda x: x[:, random.sample(range(12), 8)],
    "a tuple": lambda x: x.roll((random.randint(0, 7),), (1,))[:, :8],
    "an array": lambda x: x[:, :8] * torch.as_tensor(np.random.rand(8) < 0.5),
}


@pytest.mark.parametrize("name", RANDOM)
def test_randomness_that_torch_does_not_see_is_not_replayed(name):
    """Each pass draws its own, and a note says that it ran in full."""
    model = Calls(lambda s, x: s.o(F.dropout(RANDOM[name](x), 0.01, s.training)), o=nn.Linear(8, 3)).eval()

    found = predict(model, X[:5], 20, seed=0, keep_samples=True)

    assert len(torch.unique(found.draws[:, 0], dim=0)) > 3
    assert any("every pass ran in full" in note for note in found.notes)


def test_a_balanced_plan_follows_a_site_that_changes_its_size():
    """A layer that is skipped at random moves the sites behind it: no unit is dropped for good."""

    def forward(s: Any, x: Tensor) -> Tensor:
        if torch.rand(()) > 0.5:
            x = s.b(F.dropout(s.a(x), training=s.training))
        return s.o(F.dropout(s.c(x), training=s.training))

    for seed in range(6):
        model = Calls(forward, a=nn.Linear(12, 16), b=nn.Linear(16, 12), c=nn.Linear(12, 8), o=nn.Linear(8, 3)).eval()
        found = predict(model, X, 20, plan="balanced", masks="shared", seed=seed)
        assert torch.isfinite(found.mean).all()


def test_masks_of_weights_are_no_inputs():
    """A mask made by hand whose size happens to divide runs, with a note."""
    model = Calls(lambda s, x: x * torch.bernoulli(torch.full((1, 12), 0.5)), a=nn.Identity()).eval()

    found = predict(model, X, 10, masks="shared", seed=0, task="regression")

    assert (found.variance > 0).any()
    assert any("cannot be told apart" in note for note in found.notes)


def test_odd_inputs_are_taken():
    """Empty batches, outputs of one dimension with `until`, a default dtype of float64, numbers as a list or array."""
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3)).eval()
    whole = predict(model, X, 5, seed=1)
    parts = predict(model, [X[:3], X[:0], X[3:]], 5, seed=1)
    numbered = predict(model, X, 5, seed=1, index=list(range(70)))
    torch.testing.assert_close(whole.mean, parts.mean)
    torch.testing.assert_close(whole.mean, numbered.mean)

    flat = nn.Sequential(nn.Dropout(), nn.Linear(12, 1), nn.Flatten(0)).eval()
    assert predict(flat, X, 30, "regression", until=0.1, seed=1).samples.min() >= 10

    torch.set_default_dtype(torch.float64)
    try:
        assert predict(model, X, 20, until=0.1, seed=1).mean.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_single_rows_do_not_decide_what_the_outputs_are():
    """A row of logits may sum to 1 by chance, and one logit may be 1."""
    binary = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 1)).eval()
    binary[3].weight.data.zero_()
    binary[3].bias.data.fill_(1.0)
    assert predict(binary, X, 3, batch_size=1, seed=0).mean.shape == (70, 2)


def test_samples_from_elsewhere_may_be_an_array():
    """And there must be some."""
    assert from_samples(np.full((2, 3, 2), 0.5)).mean.shape == (3, 2)
    with pytest.raises(ValueError, match="probabilities must be"):
        from_samples(torch.zeros(0, 3, 2))
