"""dropkit.install() serves compiled and transformed code: the masks are those of dropkit's own functions."""

import gc
import subprocess
import sys
from types import FunctionType

import pytest
import torch
import torch._dynamo
from helpers.rounding import equal_in_float32
from torch.nn import functional as theirs

import dropkit
from dropkit import functional as ours

BACKENDS = ("eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow))
NAMES = ("dropout", "dropout1d", "alpha_dropout", "feature_alpha_dropout")


@pytest.fixture(autouse=True)
def _installed():
    dropkit.install()
    yield
    dropkit.uninstall()
    torch._dynamo.reset()


def seeded(call, *inputs):
    torch.manual_seed(3)
    return call(*inputs)


def test_transforms():
    """torch.func sees dropkit's operators, with its own rules for randomness."""
    x = torch.randn(4, 6, 5)

    def each(transform):
        return seeded(transform(theirs.dropout), x), seeded(transform(ours.dropout), x)

    assert torch.equal(*each(lambda f: torch.vmap(f, randomness="same")))
    assert torch.equal(*each(lambda f: torch.vmap(f, randomness="different")))
    assert torch.equal(*each(lambda f: torch.func.grad(lambda x: f(x).square().sum())))
    assert torch.equal(*each(lambda f: lambda x: torch.func.jvp(f, (x,), (x,))[1]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("inplace", [False, True], ids=["", "inplace"])
def test_compiled_functions(backend, inplace):
    """A compiled call of torch's function is a call of ours, and leaves the generator where eager does."""
    x = torch.randn(4, 6, 5)
    for name in NAMES:
        function = getattr(theirs, name)
        compiled = torch.compile(lambda x, f=function: f(x * 1, 0.3, True, inplace), backend=backend, fullgraph=True)

        output = seeded(compiled, x)
        state = torch.get_rng_state()

        assert torch.equal(output, seeded(getattr(ours, name), x, 0.3, True))
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_transformer(backend):
    """All dropouts of a TransformerEncoderLayer, that inside attention included, are the same in eager and compiled."""
    layer, x = (
        torch.nn.TransformerEncoderLayer(16, 2, dropout=0.5, batch_first=True).double(),
        torch.randn(2, 5, 16).double(),
    )

    expected = seeded(layer, x)
    state = torch.get_rng_state()
    output = seeded(torch.compile(layer, backend=backend, fullgraph=True), x)

    assert equal_in_float32(output, expected)  # the compiler may reorder sums
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
@pytest.mark.parametrize("layout", [{}, {"bidirectional": True}, {"batch_first": True}], ids=str)
def test_compiled_recurrent_networks_keep_their_dropout(kind, layout):
    """Under allow_rnn the dropout between layers is there, and the same as in eager, with its gradient."""
    network, x = kind(8, 6, num_layers=3, dropout=0.5, **layout).double(), torch.randn(4, 3, 8).double()
    with torch._dynamo.config.patch(allow_rnn=True):
        results = []
        for call in (network, torch.compile(network, backend="aot_eager")):
            network.zero_grad()
            output = seeded(call, x)[0]
            output.sum().backward()
            results.append((output.detach(), network.weight_hh_l0.grad, torch.get_rng_state()))

    (*expected, state), (*compiled, compiled_state) = results
    assert all(map(equal_in_float32, compiled, expected))
    assert torch.equal(compiled_state, state)


def test_torch_loses_that_dropout():
    """Without dropkit a compiled GRU does not drop: when torch fixes this, `patch/recurrent.py` can be deleted."""
    dropkit.uninstall()
    network, x = torch.nn.GRU(8, 6, num_layers=2, dropout=0.5), torch.randn(4, 3, 8)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(network, backend="aot_eager")
        assert torch.equal(compiled(x)[0], compiled(x)[0])
    assert not torch.equal(network(x)[0], network(x)[0])


def test_what_was_compiled_before_is_compiled_again():
    """Installing and uninstalling reach functions that were compiled already."""
    dropkit.uninstall()
    compiled, x = torch.compile(theirs.dropout, backend="aot_eager"), torch.ones(64)
    before = seeded(compiled, x)

    with dropkit.installed():
        during = seeded(compiled, x)

    assert torch.equal(during, seeded(ours.dropout, x))
    assert not torch.equal(during, before)
    assert torch.equal(seeded(compiled, x), before)


@pytest.mark.slow
def test_uninstalled_torch_compiles_its_own_again():
    """Tracing caches kernels for good; after uninstall it must not call a kernel that is no longer registered."""

    def compiled(x):
        torch._dynamo.reset()
        traced = torch.compile(lambda x: theirs.dropout(x * 1, 0.3), backend="aot_eager_decomp_partition")
        x = x.clone().requires_grad_()
        output = seeded(traced, x)
        output.sum().backward()
        return output.detach(), x.grad

    x = torch.ones(64, 64)
    dropkit.uninstall()
    never = compiled(x)
    dropkit.install()
    installed = compiled(x)
    dropkit.uninstall()

    for was, now in zip(never, compiled(x), strict=True):
        assert torch.equal(was, now)
    assert not torch.equal(never[0], installed[0])


def test_kernels_outlive_uninstall():
    """A thread can look a kernel up, wait, and enter it after uninstall, so the kernel must still exist."""

    def kernels():
        functions = [value for value in gc.get_objects() if type(value) is FunctionType]
        return [function for function in functions if function.__qualname__.startswith("_take_over.<locals>")]

    here = {id(kernel) for kernel in kernels()}

    dropkit.uninstall()

    assert here
    assert here <= {id(kernel) for kernel in kernels()}


def test_compiled_code_on_disk_knows_whether_dropkit_was_installed(tmp_path):
    """A process with dropkit installed does not load code that was compiled without."""
    code = """
import sys, torch, dropkit
if sys.argv[1] == "installed":
    dropkit.install()
compiled = torch.compile(lambda x: torch.nn.functional.dropout(x, 0.5) * 2)
torch.manual_seed(3)
print(compiled(torch.arange(64.0)).sum().item(), torch._dynamo.utils.counters["inductor"]["fxgraph_cache_hit"])
"""
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}

    outputs = [
        subprocess.run(
            [sys.executable, "-c", code, how], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        for how in ("plain", "installed")
    ]

    expected = seeded(ours.dropout, torch.arange(64.0)).mul(2).sum().item()
    assert outputs[0][0] != str(expected)
    assert outputs[1] == [str(expected), "0"]


def test_wrapper_subclasses_keep_torchs_operators():
    """A subclass with its own `__torch_dispatch__` sees the operators that it would see without dropkit."""
    seen = []

    class Logged(torch.Tensor):
        @staticmethod
        def __new__(cls, inner):
            return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

        def __init__(self, inner):
            self.inner = inner

        @classmethod
        def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
            seen.append(function.namespace)
            args = [arg.inner if isinstance(arg, cls) else arg for arg in args]
            return cls(function(*args, **(kwargs or {})))

    theirs.dropout(Logged(torch.ones(8)))

    assert set(seen) == {"aten"}
