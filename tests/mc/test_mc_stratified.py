"""Stratified sampling: a Latin hypercube, with an order of the strata for each mask element."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dropkit.kernels.params import MakeParams, alpha, inverted
from dropkit.mc import masks
from dropkit.mc.batch_dim import BatchDim
from dropkit.mc.batch_rows import BatchRows
from dropkit.mc.masks import MaskSampler, SampledMask, mask_spec
from dropkit.mc.predict import predict
from dropkit.mc.stratified import Stratified

UNITS = 40_000
KEY = 7
WORDS = torch.randint(2**32, (2, UNITS), generator=torch.Generator().manual_seed(1))


def kept(samples: int, p: float) -> Tensor:
    """Whether each unit is kept in each sample: (samples, units)."""
    strata = Stratified(samples, KEY)
    permutations = strata.permutations(*WORDS, p)
    return torch.stack([strata.is_kept(permutations, p, sample) for sample in range(samples)])


@pytest.mark.parametrize("p", [0.5, 0.1, 0.37])
@pytest.mark.parametrize("samples", [1, 2, 7, 20, 50, 64])
def test_every_element_is_kept_equally_often(samples: int, p: float) -> None:
    """Each is kept T (1 - p) times, rounded down or up, and exactly so on average."""
    counts = kept(samples, p).sum(0)
    exact = samples * (1 - p)
    part = exact % 1

    assert set(counts.tolist()) <= {int(exact), int(exact) + 1}
    assert abs(counts.double().mean() - exact) < 5 * (part * (1 - part) / UNITS) ** 0.5 + 1e-9


@pytest.mark.parametrize("p", [0.5, 0.1])
@pytest.mark.parametrize("samples", [2, 10, 50])
def test_elements_are_independent_in_each_sample(samples: int, p: float) -> None:
    """Of each group that shares a permutation, a fraction 1 - p is kept."""
    strata = Stratified(samples, KEY)
    permutations = strata.permutations(*WORDS, p)
    masks = torch.stack([strata.is_kept(permutations, p, sample) for sample in range(samples)]).double()

    for group in (permutations[0].long(), permutations[1].long() // (2 * samples)):
        count = group.bincount()
        rate = torch.zeros(samples, len(count), dtype=torch.float64).index_add_(1, group, masks)
        z = ((rate - count * (1 - p)) / (count * p * (1 - p)).sqrt())[:, count > 20]
        # Some ten thousands of groups, binomial with few trials: beyond 6.5 once in 10**5.
        assert z.abs().max() < 6.5


def test_pairs_of_samples_differ_as_random_orders_do() -> None:
    """Of two samples of 20 with p = 1/2, an element is kept in both with probability 1/2 * 9/19, in every pair."""
    is_kept = kept(20, 0.5).float()
    counts = (is_kept @ is_kept.T)[~torch.eye(20, dtype=torch.bool)]

    exact = 0.5 * 9 / 19
    # 190 pairs, of elements whose orders come of a thousand permutations each.
    assert (counts / UNITS - exact).abs().max() < 5 * (exact * (1 - exact) / 1024) ** 0.5
    # Each element is kept in 10 samples, so in 10 * 9 pairs of them.
    assert counts.sum() == UNITS * 10 * 9


@pytest.mark.parametrize("samples", [20, 200, 2000])
@pytest.mark.parametrize("p", [0.5, 0.1])
def test_joint_patterns_of_elements_average_out(samples: int, p: float) -> None:
    """Means of products of two and of three elements converge, within one seed.

    By Owen's bound the variance of a mean is at most T/(T - 1) times that of independent samples, whatever is averaged.
    """
    masks = kept(samples, p).double()[:, : 3 * 2000].div_(1 - p)
    several = masks.view(samples, 2000, 3)
    factor = samples / (samples - 1)

    for product, order in ((several[..., 0] * several[..., 1], 2), (several.prod(-1), 3)):
        variance = (1 - p) ** -order - 1
        z = (product.mean(0) - 1) / (factor * variance / samples) ** 0.5
        # Few samples give skewed means: of 2000 such, of a binomial with T (1 - p)**order expected, none beyond 7.
        assert z.abs().max() < 7
        # Twice the variance of a chi-squared number over its count.
        assert z.square().mean() < 1 + 5 * (2 / 2000) ** 0.5


def test_groups_of_elements_are_no_more_alike_than_independent_ones() -> None:
    """Of 300 elements and 2,000 samples, correlations are those of random orders, and no two share an order."""
    masks = kept(2000, 0.5)[:, :300].double()
    correlation = torch.corrcoef(masks.T)[tuple(torch.triu_indices(300, 300, 1))]

    assert abs(correlation.square().mean() * 1999 - 1) < 5 * (2 / len(correlation)) ** 0.5
    assert correlation.abs().max() < 6 / 1999**0.5


def test_uniform_numbers_are_stratified() -> None:
    """Over T samples, one number lies in each of T equal parts of [0, 1)."""
    strata, samples = Stratified(10, KEY), 10
    permutations = strata.permutations(*WORDS, 0.0)
    numbers = torch.stack([strata.uniform(permutations, sample, WORDS[0].roll(sample)) for sample in range(samples)])

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

    def drop() -> Tensor:
        output = torch.empty_like(x)
        spec = mask_spec(shape, unit, BatchDim(dim), BatchRows(ids, group))
        MaskSampler(3, 10, stratified=True).drop(output, x, SampledMask(spec, 0.5, site=0, sample=4), inverted)
        return output

    whole = drop()
    monkeypatch.setattr(masks, "_WORDS_AT_ONCE", 20)
    assert torch.equal(drop(), whole)
    assert set((whole / x).round(decimals=4).flatten().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("stratified", [False, True])
def test_kept_units_are_found_without_waiting_for_the_device(stratified: bool) -> None:
    """Masks that inputs share are computed on the host. Nothing can be read from the meta device, as of a busy GPU."""
    spec = mask_spec((5, 40), (1, 40), BatchDim(0), BatchRows(torch.arange(5), 0))
    mask, sampler = SampledMask(spec, 0.5, site=0, sample=4), MaskSampler(3, 10, stratified)
    ones = torch.ones(5, 40)
    sampler.drop(ones, ones, mask, inverted)

    assert torch.equal(sampler.kept_indices(mask, torch.device("cpu")), ones[0].nonzero().flatten())
    assert sampler.kept_indices(mask, torch.device("meta")).shape == ones[0].nonzero().flatten().shape
    sampler.drop(torch.empty(5, 40, device="meta"), torch.empty(5, 40, device="meta"), mask, inverted)


@pytest.mark.parametrize("rule", [inverted, alpha])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dropped_elements_are_chosen_not_multiplied(dtype: torch.dtype, rule: MakeParams) -> None:
    """A dropped element becomes the fill value, also where the input is NaN; nothing else changes."""
    spec = mask_spec((5, 40), None, BatchDim(0), BatchRows(torch.arange(5), None))
    sampler = MaskSampler(3, 10, stratified=True)
    wild, tame = torch.full((5, 40), torch.nan, dtype=dtype), torch.ones(5, 40, dtype=dtype)
    for x in (wild, tame):
        sampler.drop(x, x, SampledMask(spec, 0.5, site=0, sample=4), rule)

    dropped = tame == torch.tensor(rule(0.5).fill, dtype=torch.float64).to(dtype)
    assert 0.3 < dropped.double().mean() < 0.7
    assert torch.equal(wild.isnan(), ~dropped)
    assert torch.equal(wild[dropped], tame[dropped])


class _OfMask(nn.Module):
    """A function of a mask of 12 elements, from dropout or made by the module."""

    def __init__(self, function: Callable[[Tensor], Tensor], by_hand: bool) -> None:
        super().__init__()
        self.function, self.by_hand = function, by_hand

    def forward(self, x: Tensor) -> Tensor:
        if not self.by_hand:
            return self.function(nn.functional.dropout(x, 0.25, self.training))
        return self.function(x * (torch.rand_like(x) > 0.25) / 0.75 if self.training else x)


# Eighths, of which float32 holds sums exactly.
WEIGHTS = torch.arange(4, 16) / 8
INPUTS = torch.ones(300, 12)


@pytest.mark.parametrize("by_hand", [False, True], ids=["dropout", "rand"])
@pytest.mark.parametrize("masks", ["input", "shared"])
@pytest.mark.parametrize("samples", [20, 400])
def test_the_mean_of_an_additive_function_is_exact(samples: int, masks: str, by_hand: bool) -> None:
    """T * 0.75 is an integer here, and every element is kept exactly that often."""
    model = _OfMask(lambda h: (h * WEIGHTS).sum(-1), by_hand)

    # A kept input of 0.75 is scaled to 1.
    r = predict(model, 0.75 * INPUTS, samples, "regression", masks=masks, plan="stratified", seed=3)

    assert (r.mean == 0.75 * WEIGHTS.sum()).all()


@pytest.mark.parametrize("by_hand", [False, True], ids=["dropout", "rand"])
@pytest.mark.parametrize("samples", [20, 1000])
def test_the_mean_of_products_is_no_worse_than_of_independent_samples(samples: int, by_hand: bool) -> None:
    """Each of 300 inputs is a run of its own with 11 products of neighbours, of mean 1."""
    model = _OfMask(lambda h: h[:, 1:] * h[:, :-1], by_hand)

    r = predict(model, INPUTS, samples, "regression", masks="input", plan="stratified", seed=3)

    error = (r.mean - 1).double()
    independent = (1 / 0.75**2 - 1) / samples
    assert error.square().mean() < independent * samples / (samples - 1) * (1 + 5 * (2 / 300) ** 0.5)
    assert (error / independent**0.5).abs().max() < 6
