"""Keys drawn on the host for a GPU, which a stand-in models: torch's generator of a GPU, and `torch.randint` there."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from helpers.oracle import halves, philox4x32_10
from torch.utils.checkpoint import checkpoint

from dropkit import random
from dropkit.kernels import cpu
from dropkit.kernels.gpu import capture, keys

DEVICE = torch.device("cuda", 0)
INPUT = SimpleNamespace(is_cpu=False, is_cuda=True, device=DEVICE)
MINIMUM = -(2**63)


def modelled(seed: int, offset: int) -> int:
    """What torch's CUDA kernel computes for the first element: curand4's first two words, reduced to the range."""
    x, y, _, _ = philox4x32_10((*halves(offset // 4), 0, 0), halves(seed))
    return (x * 2**32 + y) % (2**64 - 1) + MINIMUM


class StandIn:
    """torch's generator of a GPU. `graphsafe_get_state` returns another object for the same state."""

    device = DEVICE

    def __init__(self, device=None):
        self.state = {"seed": 67280421310721, "offset": 0}
        self.restarts_of_cudnn = 0

    def graphsafe_get_state(self):
        alias = StandIn()
        alias.state = self.state
        return alias

    def manual_seed(self, seed):
        self.state.update(seed=seed, offset=0)

    def initial_seed(self):
        return self.state["seed"]

    def get_offset(self):
        return self.state["offset"]

    def set_offset(self, offset):
        assert offset % 4 == 0
        self.state["offset"] = offset
        self.restarts_of_cudnn += 1


def randint_of(number, increment=4):
    """`torch.randint` on a GPU whose numbers are these."""

    def randint(low, high, size, *, dtype, device, generator=None):
        assert (low, high, size, dtype, device) == (MINIMUM, 2**63 - 1, (), torch.int64, DEVICE)
        generator = torch.cuda.default_generators[0] if generator is None else generator
        state = generator.state
        drawn = number(state["seed"], state["offset"])
        state["offset"] += increment
        return torch.tensor(drawn)

    return randint


@pytest.fixture
def gpu(monkeypatch):
    """The default generator of a GPU that the process seems to have."""
    generator = StandIn()
    monkeypatch.setattr(keys, "_agree", {})
    monkeypatch.setattr(keys, "Generator", StandIn)
    monkeypatch.setattr(torch, "randint", randint_of(modelled))
    monkeypatch.setattr(capture, "current_gpu", lambda: 0)
    for name, value in {
        "default_generators": (generator,),
        "is_current_stream_capturing": lambda: False,
        "get_sync_debug_mode": lambda: 0,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return generator


@pytest.mark.parametrize("extension", ["extension", "pure Python"])
def test_the_number_is_that_of_the_generator(monkeypatch, extension):
    """A known answer of Philox4x32-10, and those of a model of torch's kernel, with and without the extension."""
    if extension == "pure Python":
        monkeypatch.setattr(cpu, "missing", "for this test")
    elif cpu.missing:
        pytest.skip(cpu.missing)

    assert keys.number_at(0, 0) == 0x6627E8D5E169C58D + MINIMUM
    for seed, offset in ((1, 4), (2**64 - 1, 2**63 - 4), (2**63 + 5, 2**35), (2**32, 2**34 + 8)):
        assert keys.number_at(seed, offset) == modelled(seed, offset)


def test_the_largest_word_is_reduced(monkeypatch):
    """The range has one number less than 64 bits, so that the largest word becomes the lowest key."""
    monkeypatch.setattr(cpu, "missing", "for this test")
    monkeypatch.setattr(keys, "philox", lambda counter, key: (2**32 - 1,) * 4)

    assert keys.number_at(0, 0) == MINIMUM


def test_keys_are_those_of_draws_on_the_device(gpu):
    """Keys and the state afterwards are those of as many draws on the device, in any order of the two kinds."""
    by_host = [random.choose_key(None, None, INPUT, 0.5) for _ in range(3)]
    by_device = random.draw(device=DEVICE)
    by_host.append(random.choose_key(None, None, INPUT, 0.5))

    assert gpu.get_offset() == 20
    seed = gpu.initial_seed()
    assert [*by_host[:3], int(by_device), by_host[3]] == [modelled(seed, offset) for offset in range(0, 20, 4)]


def test_a_generator_of_the_caller_advances_alone(gpu):
    """`generator=` is read and advanced, and the default generator is not; a seed gives its keys again."""
    own = StandIn()
    own.manual_seed(2**64 - 3)
    first = random.choose_key(None, own, INPUT, 0.5)
    own.manual_seed(2**64 - 3)
    again = random.choose_key(None, own, INPUT, 0.5)

    assert first == again == modelled(2**64 - 3, 0)
    assert (own.get_offset(), gpu.get_offset()) == (4, 0)


def test_the_dropout_of_cudnn_does_not_restart(gpu):
    """The offset is not set on the generator itself, after which cuDNN's recurrent layers would start anew."""
    random.choose_key(None, None, INPUT, 0.5)

    assert gpu.restarts_of_cudnn == 0


@pytest.mark.parametrize("generator", ["captured", "on the CPU"])
def test_the_device_draws_where_the_host_must_not(gpu, monkeypatch, generator):
    """Under capture nothing of the host is read, not even to compare; a generator of the CPU raises torch's error."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: generator == "captured")

    drawn = keys.draw(torch.Generator() if generator == "on the CPU" else None, DEVICE)

    assert drawn is None
    assert gpu.get_offset() == 0
    assert keys._agree == {}


def swapped(seed, offset):
    return (modelled(seed, offset) - MINIMUM >> 32 | modelled(seed, offset) << 32) % 2**64 + MINIMUM


def refused(seed, offset):
    raise RuntimeError("the device cannot")


@pytest.mark.parametrize(
    "randint",
    [randint_of(swapped), randint_of(modelled, increment=8), randint_of(refused)],
    ids=["other words", "other increments", "an error"],
)
def test_keys_are_drawn_on_a_device_whose_numbers_differ(gpu, monkeypatch, randint):
    """One comparison decides, silently, and the default generator does not advance by it."""
    monkeypatch.setattr(torch, "randint", randint)

    assert keys.draw(None, DEVICE) is None
    assert keys.draw(None, DEVICE) is None
    assert gpu.get_offset() == 0
    assert keys._agree == {0: False}


@pytest.mark.parametrize(("mode", "expected"), [(2, ["default", 2]), (0, [])], ids=["an error", "allowed"])
def test_the_comparison_may_wait_for_the_device(gpu, monkeypatch, mode, expected):
    """Where waiting is an error, the comparison allows it for itself, and forbids it again; else it sets nothing."""
    modes = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    random.choose_key(None, None, INPUT, 0.5)

    assert modes == expected


def test_the_current_device_becomes_that_of_the_input(gpu, monkeypatch):
    """The stream that may be captured is that of the input's device."""
    current, captured = [1], []

    @contextmanager
    def entered(device):
        current.append(device.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr(capture, "current_gpu", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: captured.append(current[-1]))

    assert keys.draw(None, DEVICE) == modelled(gpu.initial_seed(), 0)
    assert (current, captured) == ([1], [0])


def test_a_checkpointed_region_gets_its_key_again(gpu):
    """The second run of a region gets the key of the first, although torch restores no generator of the caller's."""
    own, drawn = StandIn(), []

    def region(x):
        drawn.append(random.choose_key(None, own, INPUT, 0.5))
        return x.sin()

    checkpoint(region, torch.ones(2, requires_grad=True), use_reentrant=False).sum().backward()

    assert len(drawn) == 2
    assert drawn[0] == drawn[1] == modelled(own.initial_seed(), 0)
