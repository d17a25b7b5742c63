"""torch's modes, tracers and tensor types see dropkit's operators, with the results that torch's operators give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.compare import agree, compiled, graphs, observe
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from dropkit import random
from dropkit.functional import alpha_dropout, dropout, dropout1d
from dropkit.kernels.numbers import NORMAL, UNIFORM

X = torch.arange(1.0, 25.0).view(4, 6)
KEY = torch.tensor(7)
KEYS = random.fold_in(KEY, torch.arange(24)).view(4, 6)
GAUSSIAN = (NORMAL, 0.5, 0.25)
HALF, RATE = (2**31, 2.0, 0.0, 0.0), (torch.tensor(0.5), "alpha", True)
SAMPLES: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "drop_v1": [
        ((X, KEY, *HALF, (6, 1), 0), {}),
        ((X.clone().requires_grad_(), KEY, *HALF, (6, 1), 5), {}),
        ((X.mT.double(), KEY, 2**30, 1.5, 0.5, -1.0, (0, 1), 2**40), {}),
        ((X.clone().requires_grad_(), KEYS[:, 0], *HALF, (0, 1), 0), {}),
        ((X.bfloat16(), KEYS, *HALF, (6, 1), 3), {}),
        ((X[:0], KEY, *HALF, (6, 1), 0), {}),
        ((torch.tensor(3.0), KEY, *HALF, (), 0), {}),
    ],
    "noise_v1": [
        ((X, KEY, *GAUSSIAN, (6, 1), 0), {}),
        ((X.clone().requires_grad_(), KEY, *GAUSSIAN, (6, 1), 5), {}),
        ((X.mT.double(), KEY, UNIFORM, 0.5, 1.0, (0, 1), 2**40), {}),
        ((X.bfloat16(), KEYS, *GAUSSIAN, (6, 1), 3), {}),
        ((X[:0], KEY, *GAUSSIAN, (6, 1), 0), {}),
    ],
    "drop_at_v1": [
        ((X, KEY, *RATE, (6, 1), 0), {}),
        ((X.clone().requires_grad_(), KEY, *RATE, (6, 1), 5), {}),
        ((X.mT.clone().requires_grad_(), KEYS[0], torch.tensor(0.3), "inverted", False, (0, 1), 0), {}),
        ((X, KEY, torch.tensor(1.0, dtype=torch.float64), "inverted", True, (6, 1), 0), {}),
    ],
    "draw_v1": [
        (((),), {"device": torch.device("cpu")}),
        (((3,),), {"device": torch.device("cpu"), "p": torch.tensor(0.5), "after": KEY}),
        (((2, 3),), {"device": torch.device("cpu"), "p": torch.tensor(1.0)}),
    ],
    "fold_in_v1": [((KEY, torch.tensor(3)), {}), ((KEYS, torch.arange(6)), {}), ((KEYS[:, :1], KEYS[:1]), {})],
}
UTILITIES = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def drop(x: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    return dropout(dropout(x, 0.5, key=key), 0.5), dropout1d(x, 0.3)


def test_every_operator_has_samples():
    """Every operator of dropkit is in the list of checks."""
    names = {schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("dropkit::")}

    assert names == {f"dropkit::{name}" for name in SAMPLES}


# torch 2.14 reads `.grad` of tensors that are not leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("name", SAMPLES)
def test_torch_finds_no_fault_with_an_operator(name):
    """torch.library.opcheck: schema, fake results, gradients and compilation agree with the operator."""
    operator = getattr(torch.ops.dropkit, name).default

    for arguments, named in SAMPLES[name]:
        torch.library.opcheck(operator, arguments, named, test_utils=UTILITIES)


@pytest.mark.parametrize("tracing", ["real", "fake", "symbolic"])
def test_a_traced_graph_does_what_the_function_does(tracing):
    """make_fx records dropkit's operators and no values: the graph is right for other inputs and seeds."""
    graph = make_fx(drop, tracing_mode=tracing)(X, KEY)
    x = torch.randn(4, 6) if tracing != "symbolic" else torch.randn(5, 3)

    called = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    assert {torch.ops.dropkit.drop_v1.default, torch.ops.dropkit.draw_v1.default} <= called
    assert agree(observe(graph, x, torch.tensor(8)), observe(drop, x, torch.tensor(8)))


def test_a_traced_gradient_has_the_mask():
    """The graph of a gradient calls the operator again, with the key of the forward pass."""

    def slope(x, key):
        return torch.func.grad(lambda x: dropout(x, 0.5, key=key).square().sum())(x), dropout(x, 0.5, key=key)

    graph = make_fx(slope, tracing_mode="symbolic")(X, KEY)

    assert agree(observe(graph, torch.ones(2, 9), torch.tensor(3)), observe(slope, torch.ones(2, 9), torch.tensor(3)))


def test_tracing_draws_nothing_but_what_it_runs():
    """Tracing with fake tensors leaves the generator alone; with real ones it runs the function, as with torch's."""
    for tracing, moves in (("real", True), ("fake", False), ("symbolic", False)):
        before = torch.get_rng_state()
        make_fx(drop, tracing_mode=tracing)(X, KEY)
        assert torch.equal(torch.get_rng_state(), before) is not moves


@pytest.mark.parametrize("p", [0.5, 1.0, torch.tensor(0.5)], ids=str)
def test_meta_tensors_give_meta_tensors(p):
    """On meta, sizes, strides, dtype and requires_grad are kept, no key is drawn, and in place returns the input."""
    x = torch.empty(6, 4, device="meta", dtype=torch.bfloat16).mT.requires_grad_()
    before = torch.get_rng_state()

    output, written = dropout(x, p), x * 2

    assert alpha_dropout(written, p, True, True) is written
    assert (output.device.type, output.dtype, output.requires_grad) == ("meta", torch.bfloat16, True)
    assert output.stride() == x.stride()
    assert random.fold_in(torch.empty((), dtype=torch.int64, device="meta"), 3).is_meta
    assert torch.equal(torch.get_rng_state(), before)


def test_fake_tensors_run_a_network():
    """Forward and backward passes give fake tensors, also with a rate in one, and draw no key."""
    before = torch.get_rng_state()

    with FakeTensorMode() as mode:
        x, p = mode.from_tensor(X).requires_grad_(), mode.from_tensor(torch.tensor(0.5))
        outputs = [
            dropout(x, 0.5),
            dropout(x, p),
            dropout(x * 2, 0.5, inplace=True),
            dropout(x, 0.5, key=random.draw()),
        ]
        sum(output.sum() for output in outputs).backward()

    assert all(type(tensor) is FakeTensor for tensor in (*outputs, x.grad))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("backend", [None, "aot_eager"], ids=str)
def test_autocast_passes_the_dtype_through(backend):
    """Dropout keeps the dtype of its input inside autocast, too."""

    def function(x, weight):
        with torch.autocast("cpu", torch.bfloat16):
            return dropout(x, 0.5), dropout(x @ weight, 0.5)

    inputs = X.clone().requires_grad_(), torch.eye(6)
    call = function if backend is None else compiled(function, backend)

    first, second, *_ = seen = observe(call, *inputs)
    assert (first.dtype, second.dtype) == (torch.float32, torch.bfloat16)
    assert agree(seen, observe(function, *inputs))


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_compiled_without_gradients_equals_eager(mode):
    """Compiled code draws and drops the same with gradients, without them and in inference mode."""

    def in_mode(x):
        with mode():
            y = dropout(x * 2, 0.5)
            return y, dropout(y, 0.5, inplace=True)

    def outside(x):
        return dropout(dropout(x * 2, 0.5), 0.3, inplace=True)

    assert agree(observe(compiled(in_mode), X), observe(in_mode, X))
    fast = compiled(outside)
    for _ in range(2):
        with mode():
            assert agree(observe(fast, X), observe(outside, X))
        assert agree(observe(fast, X.clone().requires_grad_()), observe(outside, X.clone().requires_grad_()))


class Calls(TorchFunctionMode):
    """A mode that records the functions it sees, by name, with their arguments."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append((func.__name__, types, len(args), sorted(kwargs or {})))
        with torch._C.DisableTorchFunction():
            return func(*args, **(kwargs or {}))


class Named(Tensor):
    """A subclass that changes nothing."""


@pytest.mark.parametrize("make", [Tensor.clone, lambda x: x.clone().as_subclass(Named)], ids=["tensor", "subclass"])
def test_function_modes_see_what_they_see_of_torch(make):
    """Modes and subclasses see one call of the function, by the same name and with the same arguments."""
    x, seen = make(X), []
    for function in (dropout, F.dropout):
        with Calls() as calls:
            function(x, 0.5)
            function(x, p=0.3, training=True)
            function(x, 0.3, inplace=True)
        seen.append(calls.seen)

    assert seen[0] == seen[1]


def test_function_modes_compile():
    """A mode inside a compiled function sees the call, as it sees torch's, and changes nothing."""

    def function(x):
        with Calls():
            return dropout(x, 0.5), F.relu(x)

    x = X.clone().requires_grad_()

    assert agree(observe(compiled(function), x), observe(function, x))


class Wrapped(Tensor):
    """A tensor that wraps another and runs every operator on it."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner):
        self = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, requires_grad=inner.requires_grad
        )
        self.inner = inner.detach()
        return self

    def __repr__(self, **_):
        return f"Wrapped({self.inner})"

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return Wrapped(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(Wrapped, lambda wrapped: wrapped.inner, (args, kwargs or {}))
        output = tree_map_only(Tensor, Wrapped, func(*args, **kwargs))
        return output


@pytest.mark.parametrize("backend", [None, "aot_eager"], ids=str)
@pytest.mark.parametrize("inplace", [False, True])
def test_wrappers_get_the_operator_and_its_gradient(backend, inplace):
    """A tensor type with `__torch_dispatch__` is dropped like the tensor that it wraps."""

    def function(x):
        return dropout(x * 2, 0.5, inplace=inplace)

    call = function if backend is None else compiled(function, backend)
    wrapped, plain = Wrapped(X).requires_grad_(), X.clone().requires_grad_()
    torch.manual_seed(1)
    output = call(wrapped)
    output.sum().backward()
    torch.manual_seed(1)
    expected = function(plain)
    expected.sum().backward()

    assert type(output) is type(wrapped.grad) is Wrapped
    assert torch.equal(output.inner, expected)
    assert torch.equal(wrapped.grad.inner, plain.grad)


def test_dispatch_modes_see_the_draw_and_the_drop():
    """A TorchDispatchMode sees both operators, forward and backward, and may replace their results."""
    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == "dropkit":
                seen.append(func)
            if func is torch.ops.dropkit.draw_v1.default:
                return torch.tensor(7)
            return func(*args, **(kwargs or {}))

    x = X.clone().requires_grad_()
    with Mode():
        output = dropout(x, 0.5)
        output.sum().backward()

    drops = [torch.ops.dropkit.drop_v1.default] * 2
    assert seen == [torch.ops.dropkit.draw_v1.default, *drops]
    assert torch.equal(output, dropout(X, 0.5, key=7))
    assert torch.equal(x.grad, dropout(torch.ones_like(X), 0.5, key=7))


def test_sizes_are_symbols_where_they_change():
    """Two graphs at most serve any number of samples and channels, with the eager masks."""
    assert (
        graphs(drop, [(torch.randn(n, m, requires_grad=True), KEY) for n, m in ((2, 3), (5, 7), (4, 4), (9, 2))]) <= 2
    )
