"""Balanced plans: every unit equally often, every single mask as without the plan."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dropkit.kernels.values import inverted
from dropkit.mc import coins
from dropkit.mc.coins import Coins, Rows, mask
from dropkit.mc.layout import Layout
from dropkit.mc.plans import Plan, blocks

UNITS = 40_000
KEY = 7
WORDS = torch.randint(2**32, (UNITS,), generator=torch.Generator().manual_seed(1))


def kept(samples: int, p: float) -> Tensor:
    """(samples, units)."""
    plan = Plan(samples)
    places = plan.places(WORDS, p)
    return torch.stack([plan.kept(places, KEY, p, sample) for sample in range(samples)])


@pytest.mark.parametrize("p", [0.5, 0.1, 0.37])
@pytest.mark.parametrize("samples", [1, 2, 7, 20, 50, 64])
def test_every_unit_is_kept_equally_often(samples: int, p: float) -> None:
    """T (1 - p) times, rounded down or up, and on average just that."""
    counts = kept(samples, p).sum(0)
    exact = samples * (1 - p)
    part = exact % 1

    assert set(counts.tolist()) <= {int(exact), int(exact) + 1}
    assert abs(counts.double().mean() - exact) < 5 * (part * (1 - part) / UNITS) ** 0.5 + 1e-9


@pytest.mark.parametrize("p", [0.5, 0.1])
@pytest.mark.parametrize("samples", [2, 10, 50])
def test_units_are_independent_in_each_sample(samples: int, p: float) -> None:
    """Also units that share an order: of each such group a fraction 1 - p is kept."""
    plan = Plan(samples)
    places = plan.places(WORDS, p)
    order = places % (plan._orders * samples) // samples

    for sample in range(samples):
        rate = torch.zeros(plan._orders).index_add_(0, order, plan.kept(places, KEY, p, sample).float())
        count = order.bincount(minlength=plan._orders)
        z = (rate - count * (1 - p)) / (count * p * (1 - p)).sqrt()
        # Some thousands of groups in all: beyond 5.5 once in 10**4.
        assert z.abs().max() < 5.5


def test_pairs_of_samples_differ_as_random_orders_do() -> None:
    """Of two samples of 20 with p = 1/2, a unit is kept in both with probability 1/2 * 9/19, in any pair on average."""
    both = kept(20, 0.5).float()
    pairs = both @ both.T / UNITS

    assert abs(pairs[~torch.eye(20, dtype=torch.bool)].mean() - 0.5 * 9 / 19) < 0.005


def test_blocks_are_balanced_as_well() -> None:
    """So that their means tell the error of the whole."""
    masks, block = kept(50, 0.5), blocks(50)

    for one in block.unique():
        counts = masks[block == one].sum(0)
        assert counts.min() >= 4
        assert counts.max() <= 6


def test_uniform_numbers_are_stratified() -> None:
    """Over T samples one in each of T equal parts of [0, 1)."""
    plan, samples = Plan(10), 10
    places = plan.places(WORDS, 0.0)
    numbers = torch.stack([plan.uniform(places, KEY, sample, WORDS.roll(sample)) for sample in range(samples)])

    assert torch.equal((numbers * samples).long().sort(0).values, torch.arange(samples)[:, None].expand(-1, UNITS))


@pytest.mark.parametrize("unit", [None, (5, 6, 1, 1)])
@pytest.mark.parametrize("group", [None, 3])
@pytest.mark.parametrize("dim", [0, 1])
def test_masks_do_not_depend_on_how_many_words_are_made_at_once(
    monkeypatch: pytest.MonkeyPatch, dim: int, group: int | None, unit: tuple[int, ...] | None
) -> None:
    shape = (5, 6, 2, 3)
    ids = torch.arange(shape[dim])
    ids[3:] += 8
    x = torch.rand(shape) + 1

    def dropped() -> Tensor:
        output = torch.empty_like(x)
        made = mask(shape, unit, Layout(dim), Rows(ids, group))
        Coins(3, 10, Plan(10)).drop(output, x, made, inverted, 0.5, site=0, sample=4)
        return output

    whole = dropped()
    monkeypatch.setattr(coins, "_COINS_AT_ONCE", 20)
    assert torch.equal(dropped(), whole)
    assert set((whole / x).round(decimals=4).flatten().tolist()) == {0.0, 2.0}
