"""Layers that compute their mask from a mask: the rate is that of what they drop."""

import pytest
import torch
from torch import nn

import dropkit
from dropkit.auditor.report_rows import granularity
from dropkit.trace import Phase


class PatchDropout(nn.Module):
    """As in timm: tokens in the order of random numbers, the first of them kept."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        kept = torch.randn(x.shape[:2]).argsort(1)[:, : round(x.shape[1] * (1 - self.p))]
        return x.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))


TOKENS = torch.rand(8, 41, 4) + 1
LAYERS = {
    "PatchDropout": (lambda p: dropkit.nn.PatchDropout(p), TOKENS, "token"),
    "its function": (lambda p: Applied(lambda x, on: dropkit.functional.patch_dropout(x, p, on)), TOKENS, "token"),
    "PatchDropout by hand": (PatchDropout, TOKENS, "token"),
    "DropBlock1d": (lambda p: dropkit.nn.DropBlock1d(p, 3), torch.rand(8, 4, 400) + 1, "block"),
    "DropBlock2d": (lambda p: dropkit.nn.DropBlock2d(p, 3), torch.rand(8, 16, 24, 24) + 1, "block"),
    "DropBlock3d": (lambda p: dropkit.nn.DropBlock3d(p, 3), torch.rand(8, 4, 16, 16, 16) + 1, "block"),
}


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x, self.training)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
@pytest.mark.parametrize(("make", "x", "covers"), LAYERS.values(), ids=LAYERS)
def test_the_rate_is_that_of_the_output_without_a_finding(make, x, covers, p):
    """Not that of the random numbers inside, which are bits or the centres of blocks."""
    report = dropkit.audit(make(p), x)

    (site,) = report.sites
    assert "DRP308" not in [finding.code for finding in report.findings]
    assert abs(site.rate - p) < 0.05
    assert granularity(next(site.visits_in(Phase.TRAIN))) == covers
