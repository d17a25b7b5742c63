"""Times are the least of several runs, with an interval, or nothing where the runs disagree."""

import pytest
import torch
from helpers.audit import net, only
from torch import nn

import dropkit
from dropkit.auditor.report_rows import row
from dropkit.auditor.timing import Timings, timed_runs
from dropkit.trace import Form, Phase, Share, Site, Visit

MUL, ADD = torch.ops.aten.mul.Tensor, torch.ops.aten.add.Tensor


def site(runs, operators=(0,)):
    """A site whose time is that of some operators in these runs, and the share of all sites."""
    visit = Visit(Phase.TRAIN)
    site = Site("drop", "Dropout", Form.REGISTERED, visits=[visit])
    share = Timings(runs).attribute([(visit, number) for number in operators], [site])
    assert share == site.share
    return site


def test_a_time_is_the_least_of_each_operator():
    """Whatever disturbs one run adds to it, and is no property of the model."""
    disturbed = [[(MUL, 1e-3), (ADD, 9e-3)], [(MUL, 7e-3), (ADD, 9e-3)], [(MUL, 5e-3), (ADD, 3e-3)]]

    assert site(disturbed).seconds == 1e-3
    assert Timings(disturbed).seconds == 4e-3


def test_a_share_is_an_interval_that_holds_the_best_estimate():
    """Its ends are what parts of the runs give."""
    runs = [[(MUL, 1.0), (ADD, 9.0)], [(MUL, 1.2), (ADD, 9.0)], [(MUL, 1.0), (ADD, 11.0)]]

    share = site(runs).share

    assert share.low == 1 / 12 <= 1 / 10 <= share.high == pytest.approx(1.2 / 10.2)
    assert share.is_reliable


@pytest.mark.parametrize(
    ("runs", "operators"),
    [
        ([[(MUL, 1.0), (ADD, 1.0)]], (0,)),
        ([[(MUL, 1.0), (ADD, 9.0)], [(MUL, 1.0), (ADD, 99.0)], [(MUL, 1.0), (ADD, 9.0)]], (0,)),
        ([[(ADD, 1.0)], [(MUL, 1.0), (ADD, 1.0)]], (0,)),
        ([[(MUL, 1.0)], [(MUL, 1.0)], [(MUL, 1.0)]], ()),
        ([[(MUL, 0.0)], [(MUL, 0.0)]], (0,)),
        ([[]], ()),
    ],
    ids=["one run", "runs that disagree", "runs of other operators", "no operator", "no time", "nothing ran"],
)
def test_a_share_on_which_runs_disagree_is_not_shown(runs, operators):
    """The cell is empty, and never a number that the next audit contradicts."""
    unreliable = site(runs, operators)

    assert not unreliable.share.is_reliable
    assert row([unreliable]).time == ""


def test_steps_are_repeated_while_they_are_fast():
    """At least once after the first, which may load code."""
    fast = list(timed_runs(lambda run: run.append((MUL, 0.0))))

    assert 2 < len(fast) <= 16


def test_the_operators_of_a_real_step_agree_from_run_to_run():
    """So every run counts, also where buffers, generators and Python's random numbers change."""
    model = nn.Sequential(net(), nn.BatchNorm1d(4), nn.Unflatten(1, (4, 1)), nn.LSTM(1, 8, 2, dropout=0.2))

    report = dropkit.audit(model, torch.randn(8, 16))

    assert 0 < sum(site.seconds for site in report.sites) < report.totals.seconds
    assert all(0 < site.share.low <= site.share.high < 1 for site in report.sites)


@pytest.mark.parametrize("share", [Share(0.02, 0.03), Share(0.01, 0.03)], ids=["reliable", "not reliable"])
def test_the_summary_shows_an_interval_or_nothing(share):
    """As the rows do."""
    report = dropkit.audit(net(), torch.randn(8, 16))
    object.__setattr__(report.totals, "share", share)

    assert ("2-3 % of the operator time" in report.table()) == share.is_reliable
    assert ("2-3 %</b>of the operator time" in report.to_html()) == share.is_reliable


@pytest.mark.parametrize("model", [nn.Linear(4, 4), nn.LSTM(4, 4), nn.Identity()], ids=["linear", "lstm", "identity"])
def test_a_model_without_dropout_is_called_so(model):
    """The report says it in words, without totals of 0."""
    report = dropkit.audit(model, torch.randn(3, 4))

    assert report.table() == "No dropout found"
    assert "No dropout found" in report.to_html()
    assert "elements dropped" not in report.to_html()


def test_the_only_site_has_the_share_of_all():
    """There is nothing else to add."""
    report = dropkit.audit(net(), torch.randn(8, 16))

    assert only(report).share == report.totals.share
