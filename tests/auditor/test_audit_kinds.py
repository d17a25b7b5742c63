"""Every kind of dropout is recognised, and its numbers are measured."""

import math
import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.audit import KINDS, Applied, P, net, only
from torch import nn

import dropkit
from dropkit.auditor.report_rows import granularity
from dropkit.trace import Phase

each_kind = pytest.mark.parametrize("kind", KINDS)


def audit(kind):
    make, shape, *_ = KINDS[kind]
    return dropkit.audit(make(), torch.randn(shape))


@each_kind
def test_every_kind_is_active_in_training_only(kind):
    *_, name, _ = KINDS[kind]

    site = only(audit(kind))

    assert site.kind == name
    assert site.was_active(Phase.TRAIN)
    assert not site.was_active(Phase.EVAL)


@each_kind
def test_the_measured_rate_is_the_requested_one(kind):
    """The rate of the counted mask elements is within six standard deviations of p."""
    site = only(audit(kind))
    mask_elements = sum(visit.mask_elements for visit in site.visits_in(Phase.TRAIN))

    assert mask_elements >= 400
    assert abs(site.rate - P) < 6 * math.sqrt(P * (1 - P) / mask_elements)


@each_kind
def test_the_granularity_is_that_of_the_kind(kind):
    site = only(audit(kind))

    assert granularity(next(site.visits_in(Phase.TRAIN))) == KINDS[kind][-1]


@each_kind
def test_equal_models_give_equal_numbers(kind):
    """The passes are seeded, whatever the state of the generators is."""
    first, second = (only(audit(kind)) for _ in range(2))

    assert [visit.dropped for visit in first.visits] == [visit.dropped for visit in second.visits]


def test_python_and_numpy_are_seeded_too():
    """A model that uses their random numbers gets the same ones in every audit."""

    def branching(x, training):
        if random.random() < 0.5 or np.random.rand() < 0.5:
            x = F.dropout(x, 0.3, training)
        if random.random() < 0.5 or np.random.rand() < 0.5:
            x = F.dropout(x + 1, 0.3, training)
        return x

    counts = [len(dropkit.audit(Applied(branching), torch.randn(8, 16)).sites) for _ in range(12)]

    assert len(set(counts)) == 1


@pytest.mark.parametrize(
    "drop",
    [
        lambda x: x * (torch.rand_like(x) > P),
        lambda x: x * torch.bernoulli(torch.full_like(x, 1 - P)),
        lambda x: x.mul((torch.rand(x.shape) + (1 - P)).floor()),
        lambda x: torch.where(torch.rand_like(x) < P, torch.zeros_like(x), x),
        lambda x: torch.where(torch.rand_like(x) > P, x, 0.0),
        lambda x: x.masked_fill(torch.rand_like(x) < P, 0),
        lambda x: x.clone().mul_(torch.empty_like(x).bernoulli_(1 - P)),
    ],
    ids=["rand", "bernoulli", "floor", "where zeros", "where input", "masked_fill", "in place"],
)
def test_masks_computed_by_hand_are_measured(drop):
    """However the mask is computed and applied, its rate is measured."""
    x = torch.randn(64, 64)

    report = dropkit.audit(Applied(lambda x, training: drop(x)), x)

    assert only(report).kind == "mask"
    assert abs(only(report).rate - P) < 6 * math.sqrt(P * (1 - P) / x.numel())
    assert [finding.code for finding in report.findings] == ["DRP108"]
    assert report.other_random == ()


def test_random_operations_without_a_mask_are_no_dropout():
    """The summary names them with their lines."""

    def noisy(x, training):
        return x[torch.randperm(len(x))] + torch.randn_like(x) * torch.rand(16)

    report = dropkit.audit(Applied(noisy), torch.randn(8, 16))

    assert report.sites == ()
    assert {operation.operator for operation in report.other_random} == {"randperm", "randn_like", "rand"}
    assert re.search(
        r"^3 other random operations: \w+ at .*test_audit_kinds.py:\d+, ", report.table(wide=True), re.MULTILINE
    )


def test_sites_are_in_order_of_execution_with_the_unreached_last():
    """Neither the order of registration nor the names matter."""

    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.never, self.second, self.first = nn.Dropout(0.1), nn.Dropout(0.2), nn.Dropout(0.3)

        def forward(self, x):
            return self.second(self.first(x) + 1)

    report = dropkit.audit(Backwards(), torch.randn(8, 16))

    assert [site.name for site in report.sites] == ["first", "second", "never"]
    assert [site.was_reached for site in report.sites] == [True, True, False]


def test_the_shape_is_that_of_the_given_input():
    """dropout1d takes (N, F) as one sample of N channels, and adds a dimension."""
    report = dropkit.audit(nn.Sequential(nn.Linear(16, 8), nn.Dropout1d(0.3), nn.Linear(8, 2)), torch.randn(64, 16))

    visit = only(report).visits[0]
    assert (visit.shape, visit.mask_shape) == ((64, 8), (64, 1))
    assert [finding.message.partition(":")[0] for finding in report.findings] == ["whole samples are dropped"]


def test_with_install_no_mask_is_saved():
    """dropkit saves a key of 8 bytes, and torch 4 bytes for each element."""
    model = nn.Sequential(net(), nn.Unflatten(1, (4, 1)), nn.LSTM(1, 8, 2, dropout=0.2))

    with dropkit.installed():
        report = dropkit.audit(model, torch.randn(64, 16))

    assert [(site.kind, site.visits[0].kept_bytes) for site in report.sites] == [("Dropout", 8), ("LSTM", 8)]


def test_without_gradients_no_mask_is_saved():
    """Saved means saved for backward."""
    report = dropkit.audit(net().requires_grad_(False), torch.randn(8, 16))

    assert only(report).visits[0].mask_elements == 8 * 32
    assert report.totals.kept_bytes == 0


def test_neighbours_have_torchs_names():
    """Operators are shown under the name of the layer in torch.nn."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Dropout2d(0.2), nn.Flatten(), nn.Linear(72, 4),
        nn.Dropout(0.1),
    )  # fmt: skip

    first, second = dropkit.audit(model, torch.randn(16, 3, 5, 5)).sites

    assert (first.visits[0].origin.last, first.visits[0].consumers) == ("GELU", ["Linear"])
    assert (second.visits[0].origin.last, second.visits[0].consumers) == ("Linear", ["output"])


def test_the_variance_seen_by_batch_norm_is_measured():
    """Dropout multiplies the variance of inputs of mean 0 by 1 / (1 - p) = 2."""
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(1))
    x = torch.randn(160_000, 1)

    visit = only(dropkit.audit(model, x)).visits[0]

    # The ratio is about sum(4 k x^2) / sum(x^2) with k = 0 or 1. Given x, its variance is
    # 16 / 4 * sum(x^4) / sum(x^2)^2, which is 12 / n for normal x.
    assert abs(visit.variance_ratio - 2) < 5 * math.sqrt(12 / len(x))
