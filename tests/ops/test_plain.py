"""The shortest way of a call: it has the bits of the general way, and only ordinary calls take it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from dropkit import kernels
from dropkit.kernels import cpu
from dropkit.ops import autograd

pytestmark = pytest.mark.extension
DTYPES = sorted(kernels.FLOATS, key=str)
SOURCES = {"drawn": lambda: {}, "generator": lambda: {"generator": torch.Generator()}, "key": lambda: {"key": 7}}


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Named(Tensor):
    """A subclass that changes nothing."""


def transformed() -> Tensor:
    """A tensor of a transform that has ended."""
    escaped = []
    torch.vmap(lambda x: escaped.append(x) or x)(torch.ones(2, 3))
    return escaped[0]


def freed(tensor: Tensor) -> Tensor:
    tensor.untyped_storage().resize_(0)
    return tensor


UNUSUAL = {
    "subclass": lambda: torch.ones(4).as_subclass(Named),
    "lazily negated": lambda: torch._neg_view(torch.ones(4)),
    "lazily zero": lambda: torch._efficientzerotensor(4),
    "escaped from vmap": transformed,
    "empty": lambda: torch.ones(0),
    "freed": lambda: freed(torch.ones(4)),
    "transposed": lambda: torch.ones(2, 3).mT,
    "expanded": lambda: torch.ones(1).expand(4),
    "integers": lambda: torch.ones(4, dtype=torch.int64),
    "complex": lambda: torch.ones(4, dtype=torch.complex64),
    "coo": lambda: torch.ones(2, 2).to_sparse(),
    "csr": lambda: torch.ones(2, 2).to_sparse_csr(),
    "mkldnn": lambda: torch.ones(2, 2).to_mkldnn(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "functional": lambda: torch._to_functional_tensor(torch.ones(4)),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(4), 1.0, 0, torch.qint8),
    "meta": lambda: torch.ones(4, device="meta"),
    "no tensor": lambda: 3.0,
}


def in_mode(ask):
    with Mode():
        ask(torch.ones(4))


def in_forward_mode(ask):
    with forward_ad.dual_level():
        ask(torch.ones(4))


def in_transform(transform, ask):
    def function(x):
        ask(torch.ones(4))
        return x.sum()

    transform(function)(torch.ones(2))


def batched_by_autograd(ask):
    """Ask about a gradient that torch batches with its older vmap."""

    class Asking(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            ask(grad)
            return grad

    x = torch.ones(2, requires_grad=True)
    torch.autograd.grad(Asking.apply(x), x, torch.eye(2), is_grads_batched=True)


# Each asks about a tensor in a state that needs the general way.
STATES = {
    "mode": in_mode,
    "forward mode": in_forward_mode,
    "vmap": partial(in_transform, lambda function: torch.vmap(function)),
    "grad": partial(in_transform, torch.func.grad),
    "jit.trace": partial(in_transform, lambda function: partial(torch.jit.trace, function, check_trace=False)),
    "batched gradients": batched_by_autograd,
}


@pytest.mark.filterwarnings("ignore")  # some kinds of tensors are prototypes
@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_is_unusual_takes_the_general_way(kind):
    """Tensors without dense memory of their own on the CPU, and of other types and dtypes, are not plain."""
    is_plain = autograd.is_plain(UNUSUAL[kind]())

    assert not is_plain


@pytest.mark.parametrize("state", STATES)
def test_unusual_states_take_the_general_way(state):
    """Nothing is plain where a mode, a transform or a tracer runs, or a level of forward mode is open."""
    answers = []

    STATES[state](lambda tensor: answers.append(autograd.is_plain(tensor)))

    assert answers
    assert not any(answers)


def test_what_is_usual_takes_the_shortest_way():
    """Contiguous tensors on the CPU, parameters, views and tensors of inference mode are plain."""
    with torch.inference_mode():
        inference = torch.ones(4)
    for tensor in (torch.ones(4), torch.nn.Parameter(torch.ones(4)), torch.ones(3, 4)[1], torch.tensor(1.0), inference):
        assert autograd.is_plain(tensor)


def observe(layer, dtype, source):
    """Outputs, gradients of both orders, and the states of the generators after some calls."""
    torch.manual_seed(1)
    source = source()
    input = torch.randn(layer.example_shape, dtype=dtype, requires_grad=True)
    output = layer.function(input, 0.3, True, **source)
    (grad,) = torch.autograd.grad(output.square().sum(), input, torch.ones_like(output.sum()), create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), input, retain_graph=True)
    dense, expanded = (
        torch.autograd.grad(output, input, upstream, retain_graph=True)[0]
        for upstream in (input.detach(), torch.ones((), dtype=dtype).expand(input.shape))
    )
    states = [torch.get_rng_state(), *(g.get_state() for g in source.values() if isinstance(g, torch.Generator))]
    return output, grad, second, dense, expanded, layer.function(input.detach(), 0.3, True, **source), *states


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_shortest_way_has_the_bits_of_the_general_one(layer, dtype, source, monkeypatch):
    """Outputs, gradients and the states of generators are those of the general way, in the same layout."""
    taken = []
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "dropped_on_cpu", lambda *arguments: taken.append(1) or cpu.dropped(*arguments))
        seen = observe(layer, dtype, SOURCES[source])

    monkeypatch.setattr(autograd, "is_plain", lambda _: False)
    expected = observe(layer, dtype, SOURCES[source])

    assert taken
    assert all(torch.equal(*pair) for pair in zip(seen, expected, strict=True))
    assert [tensor.stride() for tensor in seen] == [tensor.stride() for tensor in expected]
