"""PatchDropout beyond the laws of composed layers: its subsets, its sizes, and how others see it."""

import itertools
import math

import pytest
import torch
from torch import nn

import dropkit
from dropkit.functional import patch_dropout
from dropkit.nn import PatchDropout
from dropkit.nn.patch_dropout import keep_tokens

TOKENS = torch.arange(33.0).view(1, 33, 1).repeat(3, 1, 2)


@pytest.mark.parametrize("prefix", [0, 1, 4])
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.99, 1.0])
def test_the_output_is_the_prefix_and_the_kept_tokens(p, ordered, prefix):
    """Indices say which tokens follow the prefix, without repeats; their number is fixed, the order as asked."""
    output, indices = patch_dropout(TOKENS, p, num_prefix_tokens=prefix, ordered=ordered, return_indices=True, key=7)

    kept = 0 if p == 1 else max(1, round((1 - p) * (33 - prefix)))
    assert indices.shape == (3, kept)
    assert all(len(set(row)) == kept for row in indices.tolist())
    assert not ordered or torch.equal(indices, indices.sort(1).values)
    places = torch.cat([torch.arange(prefix).expand(3, -1), indices + prefix], 1)
    assert torch.equal(output, TOKENS.gather(1, places.unsqueeze(-1).expand(-1, -1, 2)))


def test_each_subset_is_as_likely_as_any_other():
    """Over many samples each of the 10 subsets of 3 of 5 tokens appears at its rate, within five standard errors."""
    n = 20000
    _, indices = patch_dropout(torch.zeros(n, 5, 1), 0.4, num_prefix_tokens=0, return_indices=True, key=7)

    subsets, counts = indices.unique(dim=0, return_counts=True)

    assert subsets.tolist() == [list(subset) for subset in itertools.combinations(range(5), 3)]
    assert (counts / n - 0.1).abs().max() < 5 * math.sqrt(0.1 * 0.9 / n)


def test_equal_words_keep_the_first_tokens():
    """Where random numbers are equal, the token that comes first is kept, so that each device keeps the same."""
    _, indices = keep_tokens(TOKENS, 0.5, 1, True, torch.zeros_like)

    assert torch.equal(indices, torch.arange(16).expand(3, 16))


def test_without_dropping_there_are_no_indices():
    """In eval mode and at p = 0 the input itself is returned, and None for the indices."""
    for output, indices in (
        patch_dropout(TOKENS, 0.5, False, return_indices=True),
        patch_dropout(TOKENS, 0.0, return_indices=True),
        PatchDropout(0.5, return_indices=True).eval()(TOKENS),
    ):
        assert output is TOKENS
        assert indices is None


def test_arguments_are_checked():
    """The rank and the prefix are refused in words that name them."""
    with pytest.raises(ValueError, match=r"input must be \(N, L, D\), got shape \(3, 4\)"):
        patch_dropout(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"num_prefix_tokens must be in \[0, L\], with L = 33, got 34"):
        patch_dropout(TOKENS, num_prefix_tokens=34)


@pytest.mark.parametrize("tokens", [32, 33, 34, 35])
def test_a_shard_keeps_the_tokens_of_the_whole(tokens):
    """A part of the batch keeps what it would as a part of the whole; a part of the sequence is refused."""
    x = torch.randn(4, tokens, 2)
    whole = patch_dropout(x, key=7)

    with dropkit.shard.holding(dropkit.shard.Slice(0, 1, 4)):
        assert torch.equal(patch_dropout(x[1:3], key=7), whole[1:3])
    with (
        dropkit.shard.holding(dropkit.shard.Slice(1, 0, 2 * tokens)),
        pytest.raises(NotImplementedError, match="must be split along samples"),
    ):
        patch_dropout(x, key=7)


def test_monte_carlo_subsets_belong_to_the_inputs():
    """mc.predict drops tokens in evaluation mode, the same in batches of every size, and others for other inputs."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = PatchDropout(0.5)

        def forward(self, x):
            return self.drop(x).mean(1)

    x = torch.randn(1, 17, 2) + 1e-3 * torch.randn(5, 17, 2)

    def samples(size):
        result = dropkit.mc.predict(Mean().eval(), x, 4, "regression", seed=0, batch_size=size, keep_samples=True)
        assert not result.notes
        return result.samples

    torch.testing.assert_close(samples(2), samples(5))
    assert len(samples(5).flatten(0, 1).round(decimals=2).unique(dim=0)) > 15


def test_code_compiled_by_inductor_keeps_the_same_tokens():
    """Integers are computed alike in eager and in compiled code."""
    compiled = torch.compile(patch_dropout, fullgraph=True)

    assert torch.equal(compiled(TOKENS, key=torch.tensor(7)), patch_dropout(TOKENS, key=7))


def test_an_audit_shows_a_site():
    """The audit reports the layer and its rate."""
    report = dropkit.audit(nn.Sequential(PatchDropout(0.5), nn.Linear(2, 2)), torch.randn(4, 33, 2))

    (site,) = report.sites
    assert (site.kind, site.p) == ("PatchDropout", 0.5)
