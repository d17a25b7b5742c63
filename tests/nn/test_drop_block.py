"""DropBlock beyond the laws of composed layers: its probability to the element, its blocks, and how others see it."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

import dropkit
from dropkit.functional import drop_block1d, drop_block2d, drop_block3d, dropout
from dropkit.nn import DropBlock1d, DropBlock2d, DropBlock3d
from dropkit.nn.blocks import drop_under_seeds, seed_rate

FUNCTIONS = [(drop_block1d, DropBlock1d, 1), (drop_block2d, DropBlock2d, 2), (drop_block3d, DropBlock3d, 3)]
IDS = ["1d", "2d", "3d"]


def dropped_under(seeds, shape, block):
    """What `drop_under_seeds` drops when the seeds are these."""
    return drop_under_seeds(torch.ones(shape), 0.5, block, False, False, True, lambda ones, rate, shared: ~seeds) == 0


@pytest.mark.parametrize(("size", "block"), [(1, 1), (1, 3), (2, 7), (3, 2), (5, 3)])
def test_each_element_is_dropped_with_probability_p(size, block):
    """The sum over all seeds of a sequence, each with its probability, is p at every element."""
    p, grid = 0.3, size + block - 1
    gamma = seed_rate(p, (block,))

    chances = torch.zeros(size, dtype=torch.float64)
    for bits in itertools.product([False, True], repeat=grid):
        chance = gamma ** sum(bits) * (1 - gamma) ** (grid - sum(bits))
        chances += chance * dropped_under(torch.tensor([[bits]]), (1, 1, size), (block,))[0, 0].double()

    torch.testing.assert_close(chances, torch.full_like(chances, p), rtol=0, atol=grid * 2**grid * 2e-16)


@pytest.mark.parametrize("block", [(1, 1), (2, 3), (7, 7), (4, 1)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 6)], ids=str)
def test_a_seed_drops_one_block(size, block):
    """Each seed drops the block that ends at it, clipped to the map, whichever seed of the larger grid it is."""
    grid = [length + width - 1 for length, width in zip(size, block, strict=True)]
    for row, column in itertools.product(*map(range, grid)):
        seeds = torch.zeros(1, 1, *grid, dtype=torch.bool)
        seeds[..., row, column] = True

        expected = torch.zeros(size, dtype=torch.bool)
        expected[max(0, row - block[0] + 1) : row + 1, max(0, column - block[1] + 1) : column + 1] = True

        assert torch.equal(dropped_under(seeds, (1, 1, *size), block)[0, 0], expected)


@pytest.mark.parametrize("block", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 2, 7, 14])
def test_the_rate_does_not_depend_on_the_size_of_the_map(size, block):
    """The fraction dropped is p on maps smaller and larger than a block, within five standard errors."""
    p, maps = 0.1, 4000
    output = drop_block2d(torch.ones(maps, 1, size, size), p, block, key=3)

    fractions = (output == 0).double().mean((1, 2, 3))

    assert abs(fractions.mean() - p) < 5 * fractions.std() / math.sqrt(maps)


@pytest.mark.parametrize(("function", "module", "spatial"), FUNCTIONS, ids=IDS)
def test_blocks_of_one_element_are_dropout(function, module, spatial):
    """A block size of 1 gives the bits of `dropout`, in the gradient too."""
    x = torch.randn(2, 3, *(4,) * spatial, requires_grad=True)

    outputs = function(x, 0.4, 1, key=7), dropout(x, 0.4, key=7)

    assert torch.equal(*outputs)
    assert torch.equal(*(torch.autograd.grad(output.sum(), x)[0] for output in outputs))


@pytest.mark.parametrize(("function", "module", "spatial"), FUNCTIONS, ids=IDS)
def test_functions_modules_and_in_place_agree(function, module, spatial):
    """One key, one output: by the function and the module, in place or not, with a batch or without."""
    x = torch.randn(1, 3, *(5,) * spatial)
    options = {"per_channel": False}

    expected = function(x, 0.4, 2, key=7, **options)

    assert torch.equal(module(0.4, 2, **options)(x, key=7), expected)
    assert torch.equal(function(x[0], 0.4, 2, key=7, **options), expected[0])
    written = x.clone()
    assert function(written, 0.4, 2, inplace=True, key=7, **options) is written
    assert torch.equal(written, expected)


@pytest.mark.parametrize("inplace", [False, True], ids=["", "inplace"])
def test_nothing_is_left_of_a_dropped_nan(inplace):
    """Where an element is dropped the output and the gradient are 0, whatever came in."""
    x = torch.full((2, 3, 6, 6), math.nan, requires_grad=True)

    output = drop_block2d(x * 1, 0.5, 3, inplace=inplace, key=7)
    (grad,) = torch.autograd.grad(output, x, torch.full_like(x, math.nan))

    is_dropped = drop_block2d(torch.ones_like(x), 0.5, 3, key=7) == 0
    assert torch.equal(output == 0, is_dropped)
    assert torch.equal(grad == 0, is_dropped)


def test_options_say_which_share_a_mask():
    """`batchwise` samples share one mask, and so do channels without `per_channel`; otherwise they do not."""
    x = torch.ones(3, 4, 6, 6)

    def masks(**options):
        return drop_block2d(x, 0.5, 2, key=7, **options) == 0

    def are_equal(mask, dim):
        return (mask == mask.narrow(dim, 0, 1)).all()

    for batchwise, per_channel in itertools.product([False, True], repeat=2):
        mask = masks(batchwise=batchwise, per_channel=per_channel)
        assert are_equal(mask, 0) == batchwise
        assert are_equal(mask, 1) == (not per_channel)


def test_p_1_drops_everything_without_a_draw():
    """At p = 1 nothing is random: torch's generator stays, the output is 0."""
    before = torch.get_rng_state()

    output = drop_block2d(torch.full((2, 3, 4, 4), math.nan), 1.0)

    assert torch.equal(output, torch.zeros(2, 3, 4, 4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("block_size", [0, -1, 2.5, (3,), (3, 3, 3), True], ids=str)
def test_block_sizes_are_checked(block_size):
    """A size is a positive int, or one for each dimension; the function and the module say so."""
    for call in (lambda: drop_block2d(torch.ones(1, 1, 4, 4), 0.5, block_size), lambda: DropBlock2d(0.5, block_size)):
        with pytest.raises(ValueError, match="block_size must be a positive int or a tuple of 2, got"):
            call()


def test_the_rank_is_checked():
    """Other dimensions than those of maps are refused, where nothing drops too."""
    with pytest.raises(ValueError, match=r"input must be \(N, C, H, W\), or the same without N, got shape \(4, 4\)"):
        drop_block2d(torch.ones(4, 4), training=False)


def test_each_slice_of_a_vmap_has_the_mask_of_its_key():
    """Under vmap, calls give the bits of single calls with the same keys."""
    x, keys = torch.randn(3, 2, 4, 6, 6), dropkit.random.split(7, 3)

    outputs = torch.vmap(lambda x, key: drop_block2d(x, 0.5, 3, key=key))(x, keys)

    single = [drop_block2d(one, 0.5, 3, key=key) for one, key in zip(x, keys, strict=True)]
    assert torch.equal(outputs, torch.stack(single))


@pytest.mark.parametrize("options", [{}, {"per_channel": False}, {"batchwise": True}], ids=str)
def test_a_shard_has_its_part_of_the_mask(options):
    """A part of the samples or channels drops what it would as a part of the whole; a part of the map is refused."""
    x = torch.ones(4, 6, 5, 5)
    whole = drop_block2d(x, 0.5, 2, key=7, **options)

    def part(dim):
        with dropkit.shard.holding(dropkit.shard.Slice(dim, 2, x.shape[dim])):
            return drop_block2d(x.narrow(dim, 2, 2), 0.5, 2, key=7, **options)

    for dim in (0, 1):
        assert torch.equal(part(dim), whole.narrow(dim, 2, 2))
    with pytest.raises(NotImplementedError, match="must be split along samples or channels"):
        part(3)


@pytest.mark.parametrize("options", [{}, {"per_channel": False}, {"batchwise": True}], ids=str)
def test_micro_batches_have_the_masks_of_one_batch(options):
    """Parts of a batch that follow one another drop what one call on the whole batch does."""
    x = torch.ones(4, 3, 5, 5)
    torch.manual_seed(3)
    whole = drop_block2d(x, 0.5, 2, **options)

    torch.manual_seed(3)
    parts = [drop_block2d(x[rows], 0.5, 2, **options) for rows in dropkit.shard.micro_batches(4, 2)]

    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("options", [{}, {"per_channel": False}], ids=str)
def test_monte_carlo_masks_belong_to_the_inputs(options):
    """mc.predict drops in evaluation mode; an input has its mask in batches of every size, and others other masks."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), DropBlock2d(0.5, 2, **options), nn.Flatten()).eval()
    x = torch.randn(1, 1, 8, 8).expand(5, 1, 8, 8) + 1e-3 * torch.randn(5, 1, 8, 8)

    def samples(size):
        result = dropkit.mc.predict(model, x, 4, "regression", seed=0, batch_size=size, keep_samples=True)
        assert not result.notes
        return result.samples

    expected = samples(5)
    torch.testing.assert_close(samples(2), expected)
    zeros = (expected == 0).flatten(0, 1).unique(dim=0)
    assert len(zeros) == 20
    with torch.no_grad(), dropkit.mc.sampling():
        assert (model(x) == 0).any()


def test_an_audit_shows_one_site_with_the_nominal_rate():
    """The audit reports the layer itself at p, not the seeds at theirs."""
    report = dropkit.audit(
        nn.Sequential(nn.Conv2d(1, 4, 3), DropBlock2d(0.25, 2), nn.Flatten()), torch.randn(16, 1, 8, 8)
    )

    (site,) = report.sites
    assert (site.name, site.kind, site.p) == ("1", "DropBlock2d", 0.25)


def test_code_compiled_by_inductor_has_the_same_blocks():
    """Also with the rate in a tensor, at its limits too, no new graph is made, and bits are those of eager mode."""
    x = torch.randn(2, 3, 6, 6)
    compiled = torch.compile(lambda x, p, key: drop_block2d(x, p, 3, key=key), fullgraph=True)

    for p in (0.0, 0.4, 1.0):
        output = compiled(x, torch.tensor(p, dtype=torch.float64), torch.tensor(7))
        expected = drop_block2d(x, p, 3, key=7)
        assert torch.equal(output == 0, expected == 0)
        torch.testing.assert_close(output, expected)


def test_a_graph_of_fx_holds_the_module():
    """Traced by torch.fx, the layer follows `eval()` and keeps its options."""
    traced = torch.fx.symbolic_trace(nn.Sequential(DropBlock2d(0.5, 2, per_channel=False)))
    x = torch.ones(1, 3, 6, 6)

    torch.manual_seed(3)
    output = traced(x)
    torch.manual_seed(3)

    assert torch.equal(output, DropBlock2d(0.5, 2, per_channel=False)(x))
    assert copy.deepcopy(traced).eval()(x) is x
