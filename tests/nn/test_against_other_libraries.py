"""What the layers of timm and torchvision do and their own tests check, as laws of dropkit's layers.

Their layers run beside dropkit's under each law that both obey. Where they break one, the test says by how much, from a
computation of what to expect.
"""

import math
from importlib import import_module, util
from itertools import product

import pytest
import torch
from torch import nn

from dropkit import functional as F
from dropkit.nn import DropBlock2d, DropBlock3d, DropPath, PatchDropout, rates_over_depth


@pytest.fixture
def library(request):
    """A module of another library by its name, or of dropkit by "ours"; what is not installed is skipped."""

    def get(name):
        if name == "ours":
            return F
        if util.find_spec("torchvision"):
            request.getfixturevalue("torchvision")  # timm imports it
        return pytest.importorskip({"timm": "timm.layers", "torchvision": "torchvision.ops"}[name])

    return get


def errors(p, n):
    """Five standard errors of the fraction of n independent things that each have probability p."""
    return 5 * math.sqrt(p * (1 - p) / n)


# Whole samples: timm's drop_path, torchvision's stochastic_depth.


def path(peer, x, p=0.3, training=True, batch=False, scale=True):
    """A call that drops whole samples, or all of them at once."""
    if hasattr(peer, "stochastic_depth"):
        return peer.stochastic_depth(x, p, "batch" if batch else "row", training)
    if peer is F:
        return F.drop_path(x, p, training, mode="batch" if batch else "row", scale_by_keep=scale)
    return peer.drop_path(x, p, training, scale)


PATHS = pytest.mark.parametrize("name", ["ours", "timm", "torchvision"])


@PATHS
@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_whole_samples_are_dropped_at_rate_p(library, name, p):
    """Each sample is 0, or scaled by 1 / (1 - p); so is its gradient; and the rate is p."""
    x = torch.ones(4000, 3, 2, requires_grad=True)

    output = path(library(name), x, p)
    (gradient,) = torch.autograd.grad(output.sum(), x)

    kept = output != 0
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    torch.testing.assert_close(output.detach(), kept / (1 - p))
    torch.testing.assert_close(gradient, output.detach())
    assert abs((~kept[:, 0, 0]).double().mean() - p) < errors(p, 4000)


@pytest.mark.parametrize("name", ["ours", "torchvision"])
@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_all_samples_are_dropped_or_none(library, name, p):
    """In batch mode, at rate p over many calls."""
    peer, x = library(name), torch.ones(5, 3)

    dropped = [(path(peer, x, p, batch=True) == 0).double().mean().item() for _ in range(500)]

    assert set(dropped) == {0.0, 1.0}
    assert abs(sum(dropped) / 500 - p) < errors(p, 500)


@pytest.mark.parametrize("name", ["ours", "timm"])
def test_without_scaling_kept_samples_are_as_they_were(library, name):
    """scale_by_keep=False leaves ones, and zeros."""
    output = path(library(name), torch.ones(100, 8), 0.2, scale=False)

    assert set(output.unique().tolist()) == {0.0, 1.0}


@PATHS
def test_no_sample_is_dropped_in_eval_mode_or_at_rate_0(library, name):
    """The input itself comes back."""
    peer, x = library(name), torch.ones(4, 8)

    assert path(peer, x, 0.5, training=False) is x
    assert path(peer, x, 0.0) is x


@PATHS
@pytest.mark.parametrize("batch", [False, True], ids=["row", "batch"])
def test_all_samples_are_dropped_at_rate_1(library, name, batch):
    """Zeros, without a division by 0."""
    assert not path(library(name), torch.ones(5, 3), 1.0, batch=batch and name != "timm").any()


@PATHS
def test_only_dropkit_drops_a_nan_and_keeps_no_tensor(library, name):
    """Other libraries multiply, by which NaN survives; and save the factor of each sample for backward."""
    kept, x = [], torch.full((64, 3), math.nan, requires_grad=True)

    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        output = path(library(name), x, 0.5)

    assert bool((output == 0).any()) == (name == "ours")
    assert kept == ([] if name == "ours" else [64])


@pytest.mark.parametrize("depth", [1, 2, 12, 24])
def test_rates_rise_over_depth_as_in_timm(library, depth):
    """The linear rule gives the rates that timm's models have."""
    theirs = library("timm").calculate_drop_path_rates(0.3, depth)

    # A network of one block has the rate of its last block here, in timm that of the first.
    assert rates_over_depth(0.3, depth) == pytest.approx(theirs if depth > 1 else [0.3])


@pytest.mark.parametrize(
    "module", [DropPath(0.5), DropBlock2d(0.5, 5), DropBlock3d(0.5, 5)], ids=lambda module: type(module).__name__
)
def test_layers_are_single_nodes_for_torchvisions_feature_extraction(library, module):
    """In training mode and in eval mode a layer is one node, which holds its mode."""
    library("torchvision")
    names = import_module("torchvision.models.feature_extraction").get_graph_node_names(nn.Sequential(module))

    assert names == (["input", "0"], ["input", "0"])


# Blocks: timm's and torchvision's DropBlock.


def blocks(peer, x, p=0.1, size=7, training=True, inplace=False, per_channel=True):
    """A call that drops blocks, with one mask for each channel if `per_channel`."""
    if peer is F:
        function = F.drop_block2d if x.dim() == 4 else F.drop_block3d
        return function(x, p, size, training, inplace, per_channel=per_channel)
    if hasattr(peer, "drop_block_2d"):
        return peer.drop_block_2d(x, p, size, inplace=inplace, couple_channels=not per_channel)
    function = peer.drop_block2d if x.dim() == 4 else peer.drop_block3d
    return function(x, p, size, inplace, training=training)


def expected_rate(name, p, side, size):
    """The fraction of a square map that a library drops in expectation, by its rate of seeds and where these lie.

    timm and torchvision begin a block at each position at a rate that counts blocks as if they did not overlap, and
    cut blocks off at the edge: torchvision begins blocks inside the map alone, timm at each of its elements.
    """
    if name == "ours":
        return p
    seeds = p * side**2 / size**2 / (side - size + 1) ** 2
    half, first, last = size // 2, *((0, side) if name == "timm" else (size // 2, side - size // 2))
    reach = [min(last, i + half + 1) - max(first, i - half) for i in range(side)]
    return sum(1 - (1 - seeds) ** (rows * columns) for rows, columns in product(reach, reach)) / side**2


RATES = {
    ("ours", 7): 0.1, ("ours", 10): 0.1, ("ours", 14): 0.1, ("ours", 28): 0.1,
    ("timm", 7): 0.93, ("timm", 10): 0.35, ("timm", 14): 0.21, ("timm", 28): 0.13,
    ("torchvision", 7): 0.1, ("torchvision", 10): 0.09, ("torchvision", 14): 0.09, ("torchvision", 28): 0.09,
}  # fmt: skip


@pytest.mark.parametrize(("name", "side"), RATES, ids=str)
def test_the_rate_of_blocks_of_7_by_7_is_the_computed_one(library, name, side):
    """At p = 0.1: always p in dropkit; in timm 93 % of a map of 7 x 7."""
    rate, maps = expected_rate(name, 0.1, side, 7), 2000

    fractions = (blocks(library(name), torch.ones(maps, 1, side, side)) == 0).double().mean((1, 2, 3))

    # Maps are independent, and no fraction varies more than one that is 0 or 1.
    assert abs(fractions.mean() - rate) < errors(rate, maps)
    assert round(rate, 2) == RATES[name, side]


@pytest.mark.parametrize("name", ["ours", "torchvision"])
@pytest.mark.parametrize("where", ["corner", "centre"])
def test_only_dropkit_drops_each_element_at_rate_p(library, name, where):
    """On a map of 14 x 14 torchvision drops 0.6 % of the corners and 26 % of the centre, at p = 0.1."""
    row, maps, seeds = (0 if where == "corner" else 7), 4000, 0.1 * 14**2 / 7**2 / 8**2
    rate = 0.1 if name == "ours" else 1 - (1 - seeds) ** (1 if where == "corner" else 7**2)

    dropped = blocks(library(name), torch.ones(maps, 1, 14, 14))[:, 0, row, row] == 0

    assert abs(dropped.double().mean() - rate) < errors(rate, maps)
    assert rate == 0.1 or round(rate, 3) == (0.006 if where == "corner" else 0.265)


@pytest.mark.parametrize("name", ["ours", "torchvision"])
@pytest.mark.parametrize("p", [0.1, 0.2])
def test_blocks_in_images_and_volumes_drop_nearly_p(library, name, p):
    """torchvision's own bound, 15 % of p on maps of 11 elements a side and blocks of 3; in dropkit five errors of p."""
    peer = library(name)
    for shape in ((600, 1, 11, 11), (100, 1, 11, 11, 11)):
        output = blocks(peer, torch.ones(shape), p, 3)
        fractions = (output == 0).double().flatten(1).mean(1)
        error = 5 * fractions.std() / math.sqrt(len(fractions))
        assert abs(fractions.mean() - p) < error + (0 if name == "ours" else 0.15 * p)


BLOCKS = pytest.mark.parametrize("name", ["ours", "timm", "torchvision"])


@BLOCKS
@pytest.mark.parametrize("size", [2, 3, 5], ids=str)
@pytest.mark.parametrize("side", [(7, 7), (4, 8), (10, 5), (3, 3), (8, 16), (14, 7)], ids=str)
def test_maps_of_all_shapes_have_blocks_of_all_sizes(library, name, side, size):
    """Sides that differ, and blocks larger than the map or of an even size, which torchvision refuses."""
    x = torch.ones(2, 3, *side)
    if name == "torchvision" and min(size, *side) % 2 == 0:
        with pytest.raises(ValueError, match="block size should be odd"):
            blocks(library(name), x, 0.1, size)
        return

    assert blocks(library(name), x, 0.1, size).shape == x.shape


@BLOCKS
def test_blocks_are_dropped_in_place(library, name):
    """The result is the input, with some of it dropped."""
    x = torch.ones(4, 3, 8, 8)

    assert blocks(library(name), x, 0.3, 3, inplace=True) is x
    assert (x == 0).any()


@pytest.mark.parametrize("name", ["ours", "timm"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_channels_share_blocks_if_asked(library, name, per_channel):
    """timm's couple_channels is dropkit's per_channel=False."""
    dropped = blocks(library(name), torch.ones(2, 4, 16, 16), 0.3, 5, per_channel=per_channel) == 0

    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped)) == (not per_channel)


@BLOCKS
def test_only_dropkit_scales_samples_by_themselves(library, name):
    """Kept elements are scaled by 1 / (1 - p) in dropkit, elsewhere by what the whole call kept: the mean stays 1."""
    output = blocks(library(name), torch.ones(8, 4, 16, 16), 0.3, 5)

    if name == "ours":
        assert set(output.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    else:
        torch.testing.assert_close(output.mean(), torch.tensor(1.0))


def test_blocks_are_off_in_eval_mode_and_at_rate_0(library):
    """The input itself comes back from each library's module."""
    x = torch.ones(2, 3, 8, 8)
    for layer in (DropBlock2d, library("timm").DropBlock2d, library("torchvision").DropBlock2d):
        assert layer(0.5, 3).eval()(x) is x
        assert layer(0.0, 3)(x) is x


# Tokens: timm's PatchDropout.


def tokens(peer, x, p, prefix=1, ordered=True):
    """The kept tokens and their places behind the prefix."""
    if peer is F:
        return F.patch_dropout(x, p, num_prefix_tokens=prefix, ordered=ordered, return_indices=True)
    return peer.PatchDropoutWithIndices(p, prefix, ordered)(x)


TOKENS = pytest.mark.parametrize("name", ["ours", "timm"])


@TOKENS
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
@pytest.mark.parametrize("prefix", [0, 1, 4])
def test_the_prefix_and_a_part_of_the_tokens_are_kept(library, name, prefix, ordered):
    """A quarter of 16 tokens goes, with gradient 0; others are not scaled, follow the prefix, and are indexed."""
    x = torch.randn(5, prefix + 16, 3, requires_grad=True)

    output, indices = tokens(library(name), x, 0.25, prefix, ordered)
    (gradient,) = torch.autograd.grad(output.sum(), x)

    assert output.shape == (5, prefix + 12, 3)
    assert torch.equal(output[:, :prefix], x[:, :prefix])
    assert torch.equal(output[:, prefix:], x[:, prefix:].gather(1, indices.unsqueeze(-1).expand(-1, -1, 3)))
    assert all(len(set(row)) == 12 for row in indices.tolist())
    assert torch.equal(indices.sort(1).values, indices) == ordered
    assert gradient.sum() == output.numel()


@TOKENS
def test_each_token_is_kept_as_often_as_the_others(library, name):
    """Over many samples, at the rate kept."""
    _, indices = tokens(library(name), torch.ones(5000, 8, 1), 0.25, prefix=0)

    kept = indices.flatten().bincount(minlength=8) / 5000
    assert (kept - 0.75).abs().max() < errors(0.75, 5000)


def test_the_number_of_tokens_is_nearest_to_the_rate(library):
    """Half a token is the largest difference from p; timm rounds down, after an error of binary fractions."""
    counts = {name: tokens(library(name), torch.ones(1, 20, 1), 0.9, prefix=0)[0].shape[1] for name in ("ours", "timm")}

    assert counts == {"ours": 2, "timm": 1}
    for length, p in product((14, 49, 196, 197), (0.1, 0.25, 0.3, 0.5, 0.9)):
        kept = tokens(F, torch.ones(1, length, 1), p, prefix=0)[0].shape[1]
        assert abs(kept - (1 - p) * length) <= 0.5 + 1e-9


def test_all_tokens_are_kept_in_eval_mode_and_at_rate_0(library):
    """The input itself comes back, and no indices."""
    x = torch.ones(2, 9, 3)
    for layer in (PatchDropout, library("timm").PatchDropout):
        assert layer(0.5).eval()(x) is x
        assert layer(0.0)(x) is x
    for peer in (F, library("timm")):
        assert tokens(peer, x, 0.0)[1] is None
