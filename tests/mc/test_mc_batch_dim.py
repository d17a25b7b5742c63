"""Masks follow the inputs wherever these lie in a tensor, and a note says where they cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.mc_models import Calls, close, inputs
from helpers.mc_trap_models import Mixing, Noise
from torch import Tensor, nn

from dropkit.mc.batch_dim import BatchDim, Sketch, SmallerBatch
from dropkit.mc.predict import predict

X = torch.randn(70, 12, generator=torch.Generator().manual_seed(2))
SEQUENCES = inputs(70)


def run(model: nn.Module, **settings: Any) -> Any:
    return predict(model.eval(), SEQUENCES, 6, **{"seed": 5, "keep_samples": True, "masks": "shared", **settings})


@pytest.mark.parametrize("kind", [Mixing, Noise])
@pytest.mark.parametrize("masks", ["input", "chunk"])
def test_a_note_says_where_the_batch_dimension_is_unknown(kind: type[nn.Module], masks: str) -> None:
    """Masks are still reproducible, and differ between samples and batches."""
    r = run(kind(), masks=masks, batch_size=35, chunk=35)

    assert r.notes == ("masks depend on how inputs are batched: the batch dimension is unknown at dropout 0",)
    assert torch.equal(run(kind(), masks=masks, batch_size=35, chunk=35).samples, r.samples)
    assert r.variance.amin() > 0


@pytest.mark.parametrize("masks", ["input", "chunk"])
def test_noise_differs_from_batch_to_batch(masks: str) -> None:
    """Equal inputs in two batches get different noise."""
    x = SEQUENCES[:1].expand(4, -1, -1)

    r = predict(Noise().eval(), x, 6, seed=5, masks=masks, keep_samples=True, batch_size=2, chunk=2)

    assert not torch.equal(r.samples[:, :2], r.samples[:, 2:])


@pytest.mark.parametrize("batch_size", [70, 12, 6, 3])
def test_masks_of_weights_do_not_follow_inputs(batch_size):
    """A mask of weights, made by the model, gets a note, also where its size is that of the batch, or divides it."""
    model = Calls(lambda s, x: x * torch.bernoulli(torch.full((1, 12), 0.5)), a=nn.Identity()).eval()

    result = predict(model, X, 10, masks="shared", seed=0, task="regression", batch_size=batch_size)

    assert (result.variance > 0).any()
    assert any("the batch dimension is unknown" in note for note in result.notes)


class Cells(nn.Module):
    """A recurrent cell with a dropout in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.o = nn.GRUCell(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 8)
        for step in x.unbind(1):
            h = F.dropout(self.cell(step, h), 0.3, self.training)
        return self.o(h)


def test_batches_may_differ_in_length():
    """The masks of an input do not depend on the length of the batches before it."""
    short, long = torch.randn(2, 4, 3, 4).unbind(), torch.randn(4, 6, 4)
    batches = [short[0], long, short[1]]
    ids = torch.arange(12).view(3, 4)
    model, settings = Cells().eval(), {"samples": 5, "seed": 1, "keep_samples": True}

    result = predict(model, batches, **settings)
    parts = predict(model, [part for batch in batches for part in (batch[:2], batch[2:])], **settings)
    order = ids[[1, 0, 2]].flatten()
    reordered = predict(model, [long, *short], example_ids=order, **settings)

    assert close(parts.samples, result.samples)
    assert close(reordered.samples[:, order.argsort()], result.samples)
    assert result.notes == parts.notes == reordered.notes == ()


def test_a_note_names_a_site_that_the_probe_did_not_reach():
    """The branch needs more inputs than the probe has."""

    def forward(s: Any, x: Tensor) -> Tensor:
        x = F.dropout(x, training=s.training)
        return F.dropout(x, training=s.training) if len(x) > 5 else x

    result = predict(Calls(forward).eval(), X, 5, "regression", seed=0)

    assert result.notes == ("masks depend on how inputs are batched: the batch dimension is unknown at dropout 1",)


def test_layers_that_are_skipped_at_random_are_noted():
    """Each pass skips other layers, and the sites behind them move to tensors of other dimensions."""

    def forward(s: Any, x: Tensor) -> Tensor:
        for layer in (s.a, s.b):
            if s.training and torch.rand([]) < 0.5:
                continue
            x = F.dropout(layer(x), 0.2, s.training)
        return F.dropout(x[:, :, None].mean(2), 0.2, s.training)

    class Skips(Calls):
        def forward(self, x: Tensor) -> Tensor:
            # The source of a class says what its flag is for.
            return forward(self, x) if self.training else x + torch.rand([])

    result = predict(Skips(forward, a=nn.Linear(12, 12), b=nn.Linear(12, 12)).eval(), X, 20, "regression", seed=0)

    assert any("masks depend on how inputs are batched" in note for note in result.notes)


def test_batches_that_differ_in_their_sites_are_noted():
    """A dropout for some inputs alone moves the sites behind it."""

    def forward(s: Any, x: Tensor) -> Tensor:
        if bool((x[:, 0] > 5).any()):
            x = F.dropout(x, 0.3, s.training)
        return F.dropout(x, training=s.training)

    x = X.clone()
    x[0, 0] = 6.0

    result = predict(Calls(forward).eval(), x, 5, "regression", seed=0, batch_size=10)

    assert result.notes == ("masks depend on how inputs are batched: passes differ in their number of dropouts",)


def folded(s: Any, x: Tensor) -> Tensor:
    """Drop a tensor of (steps, inputs) folded together."""
    steps = F.dropout(x.transpose(0, 1).flatten(0, 1), 0.3, s.training)
    return steps.view(x.shape[1], len(x), -1).sum(0)


def test_the_first_inputs_may_be_alike():
    """Inputs of padding alone do not show where inputs lie: more inputs are tried."""
    x = torch.randn(20, 4, 6)
    x[:3] = 0
    settings = {"samples": 5, "task": "regression", "seed": 0, "keep_samples": True}

    result, parts = (predict(Calls(folded).eval(), x, batch_size=size, **settings) for size in (20, 7))
    alike = predict(Calls(folded).eval(), torch.ones(20, 4, 6), **settings)

    assert close(parts.samples, result.samples)
    assert result.notes == parts.notes == ()
    assert alike.notes == ("masks may depend on how inputs are batched: the inputs are all alike at dropout 0",)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_a_sketch_of_many_numbers_tells_the_batch_dimension(dim):
    """Sums of neighbours roll with the inputs, and one number that does not roll shows."""
    values = torch.randn(30_000, 3, 3, 3)
    smaller = SmallerBatch(None, 2)
    before = Sketch.of(values, 3, smaller)
    rolled = values.roll(1, dim + 1)
    changed = rolled.clone()
    changed[17, 1, 2, 0] += 1

    assert before.fitting(Sketch.of(rolled, 3, smaller))[0] == BatchDim(dim + 1)
    assert before.fitting(Sketch.of(changed, 3, smaller)) == []
    assert max(rows.numel() for rows in before.rows.values()) < values.numel() / 10
