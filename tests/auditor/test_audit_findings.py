"""Findings of an audit: what a run shows, and what silences or softens it."""

import pytest
import torch
import torch.nn.functional as F
from helpers.audit import Applied, net, only
from torch import nn
from torch.utils.checkpoint import checkpoint

import dropkit
from dropkit.auditor import Auditor
from dropkit.diagnostics import Severity
from dropkit.trace import Phase


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("preserve", [True, False])
def test_another_mask_in_recomputation_is_found(reentrant, preserve):
    """A checkpoint that does not preserve the generator recomputes with another mask."""

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = net()

        def forward(self, x):
            return checkpoint(self.block, x, use_reentrant=reentrant, preserve_rng_state=preserve)

    report = dropkit.audit(Checkpointed(), torch.randn(8, 16, requires_grad=True))

    assert {finding.code for finding in report.findings} == (set() if preserve else {"DRP305"})
    assert any(only(report).visits_in(Phase.BACKWARD))


def test_an_error_in_backward_is_reported_and_the_audit_continues():
    """The finding names the dropout that causes it."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Dropout(0.5, inplace=True), nn.Linear(8, 2))

    report = dropkit.audit(model, torch.randn(8, 8))

    assert "modified by an inplace operation" in report.backward_error
    assert [finding.code for finding in report.findings] == ["DRP401"]
    assert only(report).was_reached


def test_a_rate_out_of_range_is_found_although_the_model_cannot_run():
    """torch's own error ends the run, and is part of the report."""
    model = net()
    model[2].p = 1.5

    report = dropkit.audit(model, torch.randn(8, 16))

    assert [finding.code for finding in report.findings] == ["DRP301"]
    assert report.stopped.startswith("train: ValueError: dropout probability has to be between 0 and 1")


def test_rules_are_ignored_by_code_or_prefix():
    """Case does not matter; a prefix of no code is an error."""
    model = Applied(lambda x, training: F.dropout(x, 0.5))
    x = torch.randn(8, 16)

    assert [finding.code for finding in dropkit.audit(model, x).findings] == ["DRP101"]
    assert Auditor(ignore=["drp1"]).audit(model, x).findings == ()
    assert Auditor(ignore="DRP101").audit(model, x).findings == ()
    for wrong in ("E501", ""):
        with pytest.raises(ValueError, match=f"ignore must hold codes such as DRP101 or DRP1, got '{wrong}'"):
            Auditor(ignore=[wrong])


def test_dropout_whose_name_says_that_it_stays_active_is_info():
    """A class named MCDropout is meant to be active in evaluation mode."""

    class MCDropout(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, training=True)

    report = dropkit.audit(nn.Sequential(nn.Linear(4, 4), MCDropout(), nn.Linear(4, 2)), torch.randn(8, 4))

    assert report.sites[0].was_active(Phase.EVAL)
    assert [(finding.code, finding.severity) for finding in report.findings] == [("DRP101", Severity.INFO)]


def test_comments_mean_what_they_mean_to_check(tmp_path):
    """`noqa` and the always-on marker silence a line, prose makes it info; without a comment it is an error."""
    file = tmp_path / "commented.py"
    file.write_text(
        "import torch.nn.functional as F\n"
        "from torch import nn\n"
        "class Silenced(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return F.dropout(x, 0.5)  # noqa: DRP101\n"
        "class Sampler(nn.Module):  # dropkit: always-on\n"
        "    def forward(self, x):\n"
        "        return F.dropout(x, 0.5)\n"
        "class Spoken(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return F.dropout(x, 0.5)  # dropout is always on\n"
        "class Wrong(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return F.dropout(x, 0.5)\n"
    )
    names = {}
    exec(compile(file.read_text(), str(file), "exec"), names)

    def findings(name):
        report = dropkit.audit(names[name](), torch.randn(8, 4))
        return [(finding.code, finding.severity) for finding in report.findings]

    assert findings("Silenced") == findings("Sampler") == []
    assert findings("Spoken") == [("DRP101", Severity.INFO)]
    assert findings("Wrong") == [("DRP101", Severity.ERROR)]
