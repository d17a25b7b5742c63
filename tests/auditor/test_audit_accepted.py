"""Which models and inputs an audit accepts: wrapped, compiled, scripted, distributed, in any gradient mode."""

import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
from helpers.audit import activity, net, only
from torch import nn

import dropkit
from dropkit.auditor import Auditor
from dropkit.trace import Phase


@pytest.mark.parametrize(
    "compiled",
    [
        torch.compile,
        lambda model: model.compile() or model,
        lambda model: nn.Sequential(*model[:2], torch.compile(model[2]), model[3]),
    ],
    ids=["whole", "in place", "a part"],
)
def test_compiled_models_are_audited_uncompiled(compiled):
    """The report is that of the model before compilation."""
    assert activity(dropkit.audit(compiled(net()), torch.randn(8, 16))) == [("2", "Dropout", True, False)]


def test_scripted_dropout_is_seen_by_its_operator():
    """TorchScript chooses the operator, depending on whether gradients are required."""
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit.script"):
        scripted = torch.jit.script(net())

    site = only(dropkit.audit(scripted, torch.randn(8, 16)))

    assert site.kind in ("mask", "native_dropout")
    assert site.was_active(Phase.TRAIN)
    assert not site.was_active(Phase.EVAL)
    assert sum(visit.mask_elements for visit in site.visits) == 8 * 32


def test_the_model_inside_a_wrapper_is_audited():
    """Names do not contain the wrapper."""
    report = dropkit.audit(nn.DataParallel(net()), torch.randn(8, 16))

    assert activity(report) == [("2", "Dropout", True, False)]


def test_models_without_two_modes_are_rejected():
    """The message says which model to audit instead."""
    program = torch.export.export(net(), (torch.randn(8, 16),))

    with pytest.raises(TypeError, match="got an ExportedProgram: audit the module it was exported from"):
        dropkit.audit(program, torch.randn(8, 16))
    with pytest.raises(TypeError, match=r"model must take train\(\) and eval\(\), got GraphModule"):
        dropkit.audit(program.module(), torch.randn(8, 16))


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (lambda: F.dropout, TypeError, "model must be a torch.nn.Module, got function"),
        (lambda: nn.Sequential(nn.LazyLinear(4)), ValueError, "got 0.weight uninitialized: run it once"),
        (lambda: nn.Linear(2, 2, device="meta"), ValueError, "got weight on the meta device"),
        (lambda: _inside(lambda: nn.Linear(2, 2)), ValueError, "made outside of torch.inference_mode"),
    ],
    ids=["function", "lazy", "meta", "inference"],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_models_that_cannot_run_are_rejected(model, error, words):
    """The message says what the model must be and what it is."""
    with pytest.raises(error, match=words):
        dropkit.audit(model(), torch.randn(2, 2))


def test_inputs_that_cannot_be_copied_are_rejected():
    """A generator can be read once only."""
    with pytest.raises(TypeError, match="inputs must be tensors, or containers that can be copied"):
        dropkit.audit(net(), (row for row in torch.randn(8, 16)))


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_changes_nothing(around):
    """Gradients are computed, so the mask is saved for backward."""
    with around():
        report = dropkit.audit(net().requires_grad_() if around is torch.no_grad else _outside(net), _batch())

    assert only(report).visits[0].kept_bytes == 8 * 32 * 4


def _inside(make):
    with torch.inference_mode():
        return make()


def _outside(make):
    with torch.inference_mode(False):
        return make()


def _batch():
    with torch.inference_mode(False):
        return torch.randn(8, 16)


def test_inputs_may_be_nested_and_named():
    """Containers and keyword arguments are passed on."""

    class Batched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, batch, *, mask):
            return {"logits": self.net(batch["x"][0]) * mask}

    report = dropkit.audit(Batched(), {"x": [torch.randn(8, 16)]}, mask=torch.ones(8, 1))

    assert activity(report) == [("net.2", "Dropout", True, False)]


def test_an_auditor_may_run_another_function():
    """`call` replaces `model(*inputs)`."""

    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def training_step(self, batch):
            return self.net(batch).sum()

    report = Auditor(call=lambda model, batch: model.training_step(batch)).audit(Steps(), torch.randn(8, 16))

    assert activity(report) == [("net.2", "Dropout", True, False)]


def test_other_threads_are_not_observed():
    """A model that runs in another thread meanwhile is not part of the report."""
    other, stop = net(), threading.Event()

    def work():
        while not stop.is_set():
            other(torch.randn(8, 16))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        report = dropkit.audit(net(), torch.randn(8, 16))
    finally:
        stop.set()
        thread.join()

    assert activity(report) == [("2", "Dropout", True, False)]
    assert only(report).visits[0].mask_elements == 8 * 32


_RANKS = """
import sys
import torch
import torch.distributed as dist
from torch import nn

from dropkit.auditor import Auditor

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
codes = []
for seed in (0, rank):
    torch.manual_seed(seed)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)))
    report = Auditor(group=dist.group.WORLD).audit(model, torch.randn(8, 4))
    codes.append([finding.code for finding in report.findings])
print(codes)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_that_draw_the_same_masks_are_found(tmp_path):
    """They compare their generators before the audit: DRP307 with equal seeds, nothing with seeds by rank."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _RANKS, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]

    # Before the last line torch 2.10 prints one of its own.
    assert [rank.communicate(timeout=120)[0].splitlines()[-1] for rank in ranks] == ["[['DRP307'], []]"] * 2
