"""An audit restores models that change themselves, each in its own way."""

import copy
import random
import threading
from collections import Counter, deque

import numpy as np
import pytest
import torch
from helpers.audit import Restless
from torch import nn
from torch.utils.checkpoint import checkpoint

import dropkit
from dropkit.trace import Phase

X = torch.randn(32, 16, generator=torch.Generator().manual_seed(1))


def everything(model):
    """Everything that an audit could change, by bits and by identity."""
    vars_of = [
        {name: (id(value), copy.deepcopy(value)) for name, value in vars(module).items() if _is_plain(value)}
        for module in model.modules()
    ]
    tensors = {name: (id(value), value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    hooks = [
        [len(value) for name, value in sorted(vars(module).items()) if "hooks" in name and hasattr(value, "__len__")]
        for module in model.modules()
    ]
    return vars_of, tensors, hooks, [module.training for module in model.modules()]


def _is_plain(value):
    return isinstance(value, (int, float, str, list, dict, tuple, torch.Tensor)) and not isinstance(value, nn.Parameter)


def generators():
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


@pytest.mark.parametrize("raises", [None, "train", "eval"])
@pytest.mark.parametrize("training", [True, False])
def test_everything_is_restored(raises, training):
    """Parameters, buffers, gradients, flags, attributes, hooks and generators are restored, also after an error."""
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


def test_the_callers_inputs_are_not_changed():
    """The model gets copies, and changes them in place."""
    x = torch.randn(4, 8)
    before = x.clone()

    report = dropkit.audit(nn.Sequential(nn.Dropout(0.5, inplace=True)), x)

    assert torch.equal(x, before)
    assert [finding.code for finding in report.findings] == ["DRP401"]


class Changing(nn.Module):
    """Its forward calls `change` with itself."""

    def __init__(self, change, **held):
        super().__init__()
        self.linear, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.register_buffer("buffer", torch.arange(6.0).reshape(2, 3))
        self.change = change
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x):
        with torch.no_grad():
            self.change(self)
        return self.norm(self.linear(x))


def halve(model):
    model.linear.weight.mul_(0.5)


def assign_data(model):
    model.linear.weight.data = model.linear.weight.data * 0.5
    model.buffer.data = torch.ones(7)


def clamp_data(model):
    for parameter in model.parameters():
        parameter.data.clamp_(-0.01, 0.01)


def reshape(model):
    model.buffer.unsqueeze_(0)


def shrink(model):
    if model.training:
        model.buffer.untyped_storage().resize_(0)


def replace_parameter(model):
    model.linear.weight = nn.Parameter(torch.zeros(16, 16))


def hang_on(model):
    model.linear.weight.register_hook(lambda grad: grad)
    model.linear.weight.note = 1
    model.linear.bias.requires_grad_(False)
    model.norm.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    "change",
    [halve, assign_data, clamp_data, reshape, shrink, replace_parameter, hang_on],
    ids=lambda change: change.__name__,
)
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_tensors_are_as_they_were(change):
    """The same objects, sizes, bits, hooks and flags."""
    model = Changing(change)
    before = {name: (id(value), value.detach().clone()) for name, value in model.state_dict(keep_vars=True).items()}

    dropkit.audit(model, X)

    after = model.state_dict(keep_vars=True)
    assert [(name, id(value)) for name, value in after.items()] == [
        (name, identity) for name, (identity, _) in before.items()
    ]
    assert all(torch.equal(value, before[name][1]) for name, value in after.items())
    assert all(parameter.requires_grad and not parameter._backward_hooks for parameter in model.parameters())
    assert not hasattr(model.linear.weight, "note")
    assert not model.norm._forward_hooks


class Box:
    def __init__(self, deep=3):
        self.count, self.norm, self.lists, self.tensor = 0, nn.BatchNorm1d(16), [[1]], torch.zeros(2)
        self.within = Box(deep - 1) if deep else None


class Slotted:
    __slots__ = ("__private", "count")

    def __init__(self):
        self.count = self.__private = 0

    def step(self):
        self.count += 1
        self.__private += 1
        return self.__private


def stir(model):
    model.shadow["w"].mul_(0.9).add_(0.1)
    for box in (model.box, model.box.within.within):
        box.count += 1
        box.norm(torch.randn(4, 16))
        box.lists[0].append(2)
        box.tensor += 1
    model.slotted.step()
    model.order["a"] = model.order.pop("a")
    model.old.rand()
    for parameter in model.linear.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.optimizer.step()
    model.last.append(1)
    model.counter["calls"] += 1
    model.array += 1
    model.tensor.add_(1)
    torch.rand(3, generator=model.generators[0])
    model.chance.random()
    model.numpys.random()
    random.random()
    np.random.rand()


def test_objects_in_attributes_are_as_they_were():
    """Containers, arrays, generators and objects of user classes, several levels deep."""
    order = dict.fromkeys("abc")
    model = Changing(
        stir, order=order, old=np.random.RandomState(1), shadow={"w": torch.zeros(2)}, box=Box(), slotted=Slotted(),
        last=deque([7], maxlen=3), counter=Counter(calls=5), array=np.zeros(2), tensor=torch.zeros(2),
        generators=[torch.Generator()], chance=random.Random(1), numpys=np.random.default_rng(1),
    )  # fmt: skip
    model.optimizer = torch.optim.Adam(model.linear.parameters())
    old = str(model.old.get_state())
    chance, numpys = model.chance.getstate(), str(model.numpys.bit_generator.state)
    generator = model.generators[0].get_state()

    dropkit.audit(model, X)

    assert model.shadow["w"].tolist() == model.tensor.tolist() == model.array.tolist() == [0, 0]
    for box in (model.box, model.box.within.within):
        assert (box.count, box.lists, box.tensor.tolist()) == (0, [[1]], [0, 0])
        assert box.norm.running_mean.eq(0).all()
    assert model.slotted.step() == model.slotted.count == 1
    assert list(order) == ["a", "b", "c"]
    assert str(model.old.get_state()) == old
    assert len(model.optimizer.state) == 0
    assert (list(model.last), dict(model.counter)) == ([7], {"calls": 5})
    assert torch.equal(model.generators[0].get_state(), generator)
    assert (model.chance.getstate(), str(model.numpys.bit_generator.state)) == (chance, numpys)


class Merging(nn.Linear):
    """Like LoRA layers: `eval()` merges into the weight, `train()` reverts it."""

    def __init__(self):
        super().__init__(16, 16)
        self.a, self.b, self.merged = nn.Parameter(torch.randn(2, 16)), nn.Parameter(torch.randn(16, 2)), False

    def train(self, mode=True):
        super().train(mode)
        if self.merged is mode:
            self.weight.data += (-1 if mode else 1) * self.b.data @ self.a.data
            self.merged = not mode
        return self


@pytest.mark.parametrize("training", [True, False])
def test_what_switching_modes_changes_is_restored(training):
    model = Merging().train(training)
    weight, merged = model.weight.detach().clone(), model.merged

    dropkit.audit(model, X)

    assert torch.equal(model.weight, weight)
    assert model.merged is merged


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.block, self.reentrant = nn.Linear(16, 16), reentrant

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_an_optimizer_that_steps_in_backward_does_not_step(reentrant):
    model = Checkpointed(reentrant)
    optimizer = torch.optim.Adam(model.parameters())
    hooks = [p.register_post_accumulate_grad_hook(lambda _: optimizer.step()) for p in model.parameters()]

    report = dropkit.audit(model, X.clone().requires_grad_())

    assert report.backward_error is None
    assert len(optimizer.state) == 0
    assert [len(p._post_accumulate_grad_hooks) for p in model.parameters()] == [1, 1]
    assert len(hooks) == 2


def test_the_seed_for_an_unused_device_is_kept():
    """It waits in torch's queue until the device is initialised."""
    if torch.cuda.is_initialized():
        pytest.skip("the device has been used")
    torch.manual_seed(123)

    dropkit.audit(nn.Linear(16, 2), X)

    queued = [call for call in torch.cuda._lazy_seed_tracker.get_calls() if call]
    assert [call[0].__closure__[0].cell_contents for call in queued] == [123] * len(queued)


def test_audits_in_several_threads_wait_for_each_other():
    models = [nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.Linear(16, 2)) for _ in range(4)]
    counts, state = [], torch.get_rng_state()

    threads = [
        threading.Thread(target=lambda model=model: counts.append(len(dropkit.audit(model, X).sites)))
        for model in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts == [1] * 4
    assert torch.equal(torch.get_rng_state(), state)


def test_the_warm_up_is_undone():
    """A mask that is drawn once and stored is drawn again in the observed pass."""

    class Locked(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.keep = nn.Linear(16, 16), None

        def forward(self, x):
            if self.keep is None:
                self.keep = torch.bernoulli(torch.full((16,), 0.5)) * 2
            return self.linear(x * self.keep)

    model = Locked()
    report = dropkit.audit(model, X)

    assert [(site.kind, site.was_active(Phase.TRAIN)) for site in report.sites] == [("mask", True)]
    assert model.keep is None


def test_every_module_of_a_large_model_is_as_it_was():
    """However many there are, and whatever the first one stores."""
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.1)) for _ in range(400)]
    model = nn.Sequential(*blocks)
    model[0].held = [[[index] for index in range(50)] for _ in range(500)]

    dropkit.audit(model, torch.randn(4, 4))

    assert all(module.training for module in model.modules())
    assert all(block[1].running_mean.eq(0).all() and block[1].num_batches_tracked == 0 for block in blocks)
