"""DropHead: which elements share a mask element, which inputs are refused. It obeys the laws of `helpers/laws.py`."""

import pytest
import torch
from torch import nn

import dropkit
from dropkit.functional import drop_head, dropout
from dropkit.nn import DropHead

SHAPE = (16, 4, 3, 2)
KEPT = dropout(torch.ones(16, 4), 0.25, key=7) != 0


@pytest.mark.parametrize("head_dim", [1, 2, -2, -1])
def test_whole_heads_are_dropped(head_dim):
    """Head h of sample n is kept exactly if mask element (n, h) is, wherever the heads' dimension lies."""
    x = torch.randn(SHAPE)
    kept, heads_last = KEPT.view(16, 4, 1, 1), x.movedim(1, head_dim)

    output = drop_head(heads_last, 0.25, head_dim=head_dim, key=7)

    assert torch.equal(output.movedim(head_dim, 1), torch.where(kept, x * torch.tensor(1 / 0.75), 0.0))


@pytest.mark.parametrize(("shape", "head_dim"), [((3,), 1), ((3, 4), 2), ((3, 4), 0), ((3, 4), -2), ((3, 4), -3)])
def test_heads_need_a_dimension_of_their_own(shape, head_dim):
    """A dimension that the input lacks, and that of the batch, are refused."""
    with pytest.raises(RuntimeError, match=rf"head_dim must be a dimension of the input after .* got {head_dim}"):
        drop_head(torch.ones(shape), head_dim=head_dim)


def test_the_module_keeps_its_option_in_fx():
    """A graph of torch.fx holds the module, and drops as it does."""
    module, x = DropHead(0.25, head_dim=2), torch.randn(SHAPE)
    graph = torch.fx.symbolic_trace(nn.Sequential(module))

    assert torch.equal(graph.get_submodule("0")(x, key=7), module(x, key=7))
    assert torch.equal(graph.eval()(x), x)


def test_monte_carlo_drops_whole_heads():
    """`mc.sampling` makes it drop in evaluation mode, whole heads at a time, whatever their dimension."""
    x = torch.randn(SHAPE)

    with dropkit.mc.sampling():
        output = DropHead(0.5, head_dim=2).eval()(x)

    kept = (output != 0).any((1, 3), keepdim=True)
    assert 0 < kept.sum() < kept.numel()
    assert torch.equal(output, torch.where(kept, x * 2, 0.0))


def test_an_audit_shows_a_site():
    """The audit reports its kind and its rate."""
    report = dropkit.audit(
        nn.Sequential(nn.Conv2d(1, 4, 1), DropHead(0.5), nn.Conv2d(4, 1, 1)), torch.randn(8, 1, 2, 2)
    )

    (site,) = report.sites
    assert (site.name, site.kind, site.p) == ("1", "DropHead", 0.5)
