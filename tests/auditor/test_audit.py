"""The auditor: every kind of dropout is seen as it is, and nothing of an audit stays behind."""

import copy
import math
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.audit import KINDS, Applied, P, Restless
from torch import nn
from torch.utils.checkpoint import checkpoint

import dropkit
from dropkit.auditor import Auditor
from dropkit.auditor.report_rows import granularity
from dropkit.diagnostics import Severity
from dropkit.trace import Phase

each_kind = pytest.mark.parametrize("kind", KINDS)


def audit(kind):
    make, shape, *_ = KINDS[kind]
    return dropkit.audit(make(), torch.randn(shape))


def only(report):
    (site,) = report.sites
    return site


@each_kind
def test_every_kind_is_seen_to_draw_in_training_alone(kind):
    *_, name, _ = KINDS[kind]

    site = only(audit(kind))

    assert site.kind == name
    assert site.was_active(Phase.TRAIN)
    assert not site.was_active(Phase.EVAL)


@each_kind
def test_the_realised_rate_is_the_one_that_was_asked_for(kind):
    """Within six standard deviations of the coins that were counted, and counted they were."""
    site = only(audit(kind))
    coins = sum(visit.mask_elements for visit in site.visits_in(Phase.TRAIN))

    assert coins >= 400
    assert abs(site.rate - P) < 6 * math.sqrt(P * (1 - P) / coins)


@each_kind
def test_what_one_coin_decides_is_seen(kind):
    site = only(audit(kind))

    assert granularity(next(site.visits_in(Phase.TRAIN))) == KINDS[kind][-1]


@each_kind
def test_an_audit_of_the_same_model_gives_the_same_numbers(kind):
    """Whatever the generator's state: the passes are seeded."""
    first, second = (only(audit(kind)) for _ in range(2))

    assert [visit.dropped for visit in first.visits] == [visit.dropped for visit in second.visits]


def test_python_and_numpy_are_seeded_too():
    """A model that tosses their coins tosses the same ones in every audit."""

    def tossed(x, training):
        if random.random() < 0.5 or np.random.rand() < 0.5:
            x = F.dropout(x, 0.3, training)
        if random.random() < 0.5 or np.random.rand() < 0.5:
            x = F.dropout(x + 1, 0.3, training)
        return x

    reached = [len(dropkit.audit(Applied(tossed), torch.randn(8, 16)).sites) for _ in range(12)]

    assert len(set(reached)) == 1


def everything(model):
    """All that an audit could have changed, to the bit and to the object."""
    vars_of = [
        {name: (id(value), copy.deepcopy(value)) for name, value in vars(module).items() if _plain(value)}
        for module in model.modules()
    ]
    tensors = {name: (id(value), value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    hooks = [
        [len(value) for name, value in sorted(vars(module).items()) if "hooks" in name and hasattr(value, "__len__")]
        for module in model.modules()
    ]
    return vars_of, tensors, hooks, [module.training for module in model.modules()]


def _plain(value):
    return isinstance(value, (int, float, str, list, dict, tuple, torch.Tensor)) and not isinstance(value, nn.Parameter)


def generators():
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


@pytest.mark.parametrize("raises", [None, "train", "eval"])
@pytest.mark.parametrize("training", [True, False])
def test_nothing_stays_behind(raises, training):
    """Parameters, buffers, gradients, flags, attributes, hooks and generators are as before, also after an error."""
    model = Restless(raises).train(training)
    model.norm.eval()
    model.head.weight.grad = torch.full((2, 8), 7.0)
    x = torch.randn(4, 8, requires_grad=True)
    random.seed(99), np.random.seed(99)
    before, chance, grad = everything(model), generators(), model.head.weight.grad
    state, generator = copy.deepcopy(model.state_dict()), model.generator.get_state()

    if raises == "train":
        with pytest.raises(ArithmeticError):
            dropkit.audit(model, x)
    else:
        report = dropkit.audit(model, x)
        assert report.stopped == (None if raises is None else "eval: ArithmeticError: eval")

    after = everything(model)
    assert str(after[0]) == str(before[0])
    assert after[2:] == before[2:]
    assert generators() == chance
    assert torch.equal(model.generator.get_state(), generator)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.head.weight.grad is grad
    assert grad.eq(7).all()
    assert model.linear.bias.grad is None
    assert x.grad is None
    assert model.calls == 0
    assert not hasattr(model, "cache")
    assert torch.nn.modules.module._global_forward_hooks == {}
    assert torch.nn.modules.module._global_forward_pre_hooks == {}
    assert torch.is_grad_enabled()


def test_the_callers_inputs_are_not_touched():
    x = torch.randn(4, 8)
    before = x.clone()

    report = dropkit.audit(nn.Sequential(nn.Dropout(0.5, inplace=True)), x)

    assert torch.equal(x, before)
    assert [finding.code for finding in report.findings] == ["DRP401"]


def net():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))


def seen(report):
    return [(site.name, site.kind, site.was_active(Phase.TRAIN), site.was_active(Phase.EVAL)) for site in report.sites]


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
    assert seen(dropkit.audit(compiled(net()), torch.randn(8, 16))) == [("2", "Dropout", True, False)]


def test_scripted_dropout_is_seen_by_its_operator():
    """Which one that is TorchScript decides, once it knows whether gradients are wanted."""
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit.script"):
        scripted = torch.jit.script(net())

    site = only(dropkit.audit(scripted, torch.randn(8, 16)))

    assert site.kind in ("mask", "native_dropout")
    assert site.was_active(Phase.TRAIN)
    assert not site.was_active(Phase.EVAL)
    assert sum(visit.mask_elements for visit in site.visits) == 8 * 32


def test_what_cannot_be_run_in_both_modes_is_refused_with_the_reason():
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
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_errors_say_what_is_wanted_and_what_came(model, error, words):
    with pytest.raises(error, match=words):
        dropkit.audit(model(), torch.randn(2, 2))


def test_inputs_that_cannot_be_copied_are_refused():
    with pytest.raises(TypeError, match="inputs must be tensors, or containers that can be copied"):
        dropkit.audit(net(), (row for row in torch.randn(8, 16)))


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_changes_nothing(around):
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


def test_under_install_no_mask_is_held():
    """Eight bytes of a key each, where torch holds four bytes an element."""
    model = nn.Sequential(net(), nn.Unflatten(1, (4, 1)), nn.LSTM(1, 8, 2, dropout=0.2))

    with dropkit.installed():
        report = dropkit.audit(model, torch.randn(64, 16))

    assert [(site.kind, site.visits[0].kept_bytes) for site in report.sites] == [("Dropout", 8), ("LSTM", 8)]


def test_sites_come_in_order_of_execution_and_the_unreached_last():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.never, self.second, self.first = nn.Dropout(0.1), nn.Dropout(0.2), nn.Dropout(0.3)

        def forward(self, x):
            return self.second(self.first(x) + 1)

    report = dropkit.audit(Backwards(), torch.randn(8, 16))

    assert [site.name for site in report.sites] == ["first", "second", "never"]
    assert [site.was_reached for site in report.sites] == [True, True, False]


def test_the_shape_is_the_one_that_was_given():
    """dropout1d takes (N, F) for one sample of N channels, and adds a dimension in front."""
    report = dropkit.audit(nn.Sequential(nn.Linear(16, 8), nn.Dropout1d(0.3), nn.Linear(8, 2)), torch.randn(64, 16))

    visit = only(report).visits[0]
    assert (visit.shape, visit.mask_shape) == ((64, 8), (64, 1))
    assert [finding.message.partition(":")[0] for finding in report.findings] == ["whole samples are dropped"]


def test_what_no_backward_needs_is_not_held():
    report = dropkit.audit(net().requires_grad_(False), torch.randn(8, 16))

    assert only(report).visits[0].mask_elements == 8 * 32
    assert report.totals.kept_bytes == 0


def test_neighbours_are_named_as_torch_names_layers():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Dropout2d(0.2), nn.Flatten(), nn.Linear(72, 4),
        nn.Dropout(0.1),
    )  # fmt: skip

    first, second = dropkit.audit(model, torch.randn(16, 3, 5, 5)).sites

    assert (first.visits[0].origin.last, first.visits[0].consumers) == ("GELU", ["Linear"])
    assert (second.visits[0].origin.last, second.visits[0].consumers) == ("Linear", ["output"])


def test_the_variance_that_batch_norm_learns_is_measured():
    """Inputs of mean 0 come out of dropout with 1 / (1 - p) times their variance."""
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(8))
    x = torch.randn(20_000, 8)

    visit = only(dropkit.audit(model, x)).visits[0]

    assert abs(visit.variance_ratio - 2) < 0.1


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("preserve", [True, False])
def test_masks_drawn_anew_in_backward_are_found(reentrant, preserve):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = net()

        def forward(self, x):
            return checkpoint(self.block, x, use_reentrant=reentrant, preserve_rng_state=preserve)

    report = dropkit.audit(Checkpointed(), torch.randn(8, 16, requires_grad=True))

    assert {finding.code for finding in report.findings} == (set() if preserve else {"DRP305"})
    assert any(only(report).visits_in(Phase.BACKWARD))


def test_a_backward_that_fails_is_told_and_the_audit_goes_on():
    model = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Dropout(0.5, inplace=True), nn.Linear(8, 2))

    report = dropkit.audit(model, torch.randn(8, 8))

    assert "modified by an inplace operation" in report.backward_error
    assert [finding.code for finding in report.findings] == ["DRP401"]
    assert only(report).was_reached


def test_a_rate_out_of_range_is_found_though_the_model_cannot_run():
    model = net()
    model[2].p = 1.5

    report = dropkit.audit(model, torch.randn(8, 16))

    assert [finding.code for finding in report.findings] == ["DRP301"]
    assert report.stopped.startswith("train: ValueError: dropout probability has to be between 0 and 1")


def test_random_numbers_that_mask_nothing_are_no_dropout():
    def noisy(x, training):
        return x[torch.randperm(len(x))] + torch.randn_like(x) * torch.rand(16)

    report = dropkit.audit(Applied(noisy), torch.randn(8, 16))

    assert report.sites == ()
    assert {draw.operator for draw in report.other_random} == {"randperm", "randn_like", "rand"}


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
def test_masks_drawn_by_hand_are_seen_with_their_rate(drop):
    x = torch.randn(64, 64)

    report = dropkit.audit(Applied(lambda x, training: drop(x)), x)

    assert only(report).kind == "mask"
    assert abs(only(report).rate - P) < 6 * math.sqrt(P * (1 - P) / x.numel())
    assert [finding.code for finding in report.findings] == ["DRP108"]
    assert report.other_random == ()


def test_other_threads_are_not_watched():
    """A model that runs elsewhere meanwhile is no part of the audit."""
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

    assert seen(report) == [("2", "Dropout", True, False)]
    assert only(report).visits[0].mask_elements == 8 * 32


def test_inputs_may_be_nested_and_named():
    class Batched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, batch, *, mask):
            return {"logits": self.net(batch["x"][0]) * mask}

    report = dropkit.audit(Batched(), {"x": [torch.randn(8, 16)]}, mask=torch.ones(8, 1))

    assert seen(report) == [("net.2", "Dropout", True, False)]


def test_an_auditor_may_run_something_else():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def training_step(self, batch):
            return self.net(batch).sum()

    report = Auditor(call=lambda model, batch: model.training_step(batch)).audit(Steps(), torch.randn(8, 16))

    assert seen(report) == [("net.2", "Dropout", True, False)]


def test_rules_can_be_ignored_by_code_or_its_beginning():
    model = Applied(lambda x, training: F.dropout(x, 0.5))
    x = torch.randn(8, 16)

    assert [finding.code for finding in dropkit.audit(model, x).findings] == ["DRP101"]
    assert Auditor(ignore=["drp1"]).audit(model, x).findings == ()
    assert Auditor(ignore="DRP101").audit(model, x).findings == ()
    for wrong in ("E501", ""):
        with pytest.raises(ValueError, match=f"ignore must hold codes such as DRP101 or DRP1, got '{wrong}'"):
            Auditor(ignore=[wrong])


def test_dropout_that_is_named_to_stay_on_is_information():
    class MCDropout(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, training=True)

    report = dropkit.audit(nn.Sequential(nn.Linear(4, 4), MCDropout(), nn.Linear(4, 2)), torch.randn(8, 4))

    assert report.sites[0].was_active(Phase.EVAL)
    assert [(one.code, one.severity) for one in report.findings] == [("DRP101", Severity.INFO)]


def test_comments_say_what_they_say_to_the_checker(tmp_path):
    """A silenced line is silent, a marked class means it, prose makes it information; without a word it is found."""
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

    def found(name):
        return [(one.code, one.severity) for one in dropkit.audit(names[name](), torch.randn(8, 4)).findings]

    assert found("Silenced") == found("Sampler") == []
    assert found("Spoken") == [("DRP101", Severity.INFO)]
    assert found("Wrong") == [("DRP101", Severity.ERROR)]


def test_wrapped_models_are_audited_inside():
    report = dropkit.audit(nn.DataParallel(net()), torch.randn(8, 16))

    assert seen(report) == [("2", "Dropout", True, False)]


_RANKS = """
import sys
import torch
import torch.distributed as dist
from torch import nn

from dropkit.auditor import Auditor

rank, seeded, store = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(rank if seeded == "by rank" else 0)
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)))
report = Auditor(group=dist.group.WORLD).audit(model, torch.randn(8, 4))
print([finding.code for finding in report.findings])
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("seeded", "codes"), [("alike", "['DRP307']"), ("by rank", "[]")])
def test_ranks_that_draw_the_same_masks_are_found(seeded, codes, tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _RANKS, str(rank), seeded, str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]

    # Before the last line torch 2.10 prints one of its own.
    assert [rank.communicate(timeout=120)[0].splitlines()[-1] for rank in ranks] == [codes, codes]
