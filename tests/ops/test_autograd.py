"""Gradients and transforms of every layer: each kind of derivative has the mask of the call."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import dropkit
from dropkit import random
from dropkit.nn.layer import Layer

KEY = 7


def example(layer: Layer, requires_grad: bool = False) -> Tensor:
    return torch.rand(layer.example_shape, dtype=torch.float64).requires_grad_(requires_grad)


def slope(layer: Layer, key: Tensor | int = KEY) -> Tensor:
    """The derivative of the call: the scale where kept, 0 where dropped."""
    ones, zeros = (torch.full(layer.example_shape, value, dtype=torch.float64) for value in (1, 0))
    return layer.function(ones, 0.5, True, key=key) - layer.function(zeros, 0.5, True, key=key)


def same(result: Tensor, expected: Tensor) -> bool:
    """Whether tensors are equal within the rounding of numbers up to 64, the largest in these tests."""
    return torch.allclose(result, expected, rtol=0, atol=64 * torch.finfo(torch.float64).eps)


def test_in_place_after_an_operation_has_its_gradient(layer):
    """The gradient flows through an in-place call on a tensor that is not a leaf."""
    x = example(layer, requires_grad=True)

    layer.function(x * 3, 0.5, True, True, key=KEY).sum().backward()

    assert same(x.grad, 3 * slope(layer))


@pytest.mark.keeps_or_drops
def test_in_place_over_a_saved_output_is_refused_at_backward(layer):
    """Overwriting the output that sigmoid saved raises, instead of giving a wrong gradient."""
    for p in (0.5, 1.0):
        output = layer.function(example(layer, requires_grad=True).sigmoid(), p, True, True)

        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


def test_in_place_on_a_view_changes_its_base(layer):
    """The base shows the dropped values, and its gradient has the slope there and 1 elsewhere."""
    x = torch.stack([example(layer)] * 2).requires_grad_()
    base = x * 1
    before = base.detach().clone()

    layer.function(base[1], 0.5, True, True, key=KEY)
    base.sum().backward()

    assert torch.equal(base[0], before[0])
    assert torch.equal(base[1], layer.function(before[1], 0.5, True, key=KEY))
    assert same(x.grad[1], slope(layer))
    assert torch.equal(x.grad[0], torch.ones(layer.example_shape, dtype=torch.float64))


@pytest.mark.parametrize("inplace", [False, True])
def test_gradients_are_right_to_second_order(layer, inplace):
    """Reverse, forward, batched, undefined and forward-over-reverse gradients agree with differences."""

    def call(x):
        return layer.function(x * 1, 0.5, True, inplace, key=KEY)

    x = (torch.rand((2, 3, *[1] * (len(layer.example_shape) - 2)), dtype=torch.float64) + 0.5).requires_grad_()

    batched = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(call, x, check_forward_ad=True, **batched)
    assert torch.autograd.gradgradcheck(call, x, check_fwd_over_rev=True, check_rev_over_rev=True)


def test_forward_mode_has_the_mask_of_the_output(layer):
    """The tangent of a call is its slope, also in place."""
    x = example(layer)
    for inplace in (False, True):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.clone(), torch.ones_like(x))
            tangent = forward_ad.unpack_dual(layer.function(dual, 0.5, True, inplace, key=KEY)).tangent

        assert same(tangent, slope(layer))


def test_the_tangent_passes_where_nothing_is_dropped(layer):
    """In eval mode the dual number is returned unchanged."""
    x = example(layer)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))

        assert layer.function(dual, 0.5, False) is dual


@pytest.mark.keeps_or_drops
@pytest.mark.parametrize("grad_strides", ["dense", "expanded"])
def test_gradients_have_the_layout_of_what_they_come_from(layer, grad_strides):
    """A dense gradient keeps its strides, as in torch; an expanded one gets the output's strides.

    There torch does so in elementwise dropout alone, and gives the channel variants a contiguous gradient.
    """
    x = example(layer).transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    output = layer.function(x, 0.5, True)
    upstream = torch.ones(layer.example_shape, dtype=torch.float64)

    (grad,) = torch.autograd.grad(output, x, upstream if grad_strides == "dense" else upstream[:1, :1].expand(x.shape))

    assert grad.stride() == (upstream if grad_strides == "dense" else output).stride()


class Watched(TorchDispatchMode):
    """A mode that changes nothing, so that the call runs the registered operator."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def gradient_of_a_table(way: str, sparse: bool) -> Tensor:
    """The gradient of a table with dropout, of whose rows an embedding looks some up, one of them twice."""
    table, rows = torch.linspace(-1, 1, 80).view(20, 4).requires_grad_(), torch.tensor([1, 3, 3])
    functions = functional if way == "installed" else dropkit.functional

    def loss(table):
        torch.manual_seed(0)
        dropped = functions.dropout(table * 1, 0.5, True, inplace=way == "in place")
        return functional.embedding(rows, dropped, sparse=sparse).square().sum()

    if way == "torch.func":
        return torch.func.grad(loss)(table.detach())
    with {"installed": dropkit.installed, "general": Watched}.get(way, nullcontext)():
        return torch.autograd.grad(loss(table), table)[0]


@pytest.mark.parametrize("way", ["eager", "in place", "installed", "general", "torch.func"])
def test_a_sparse_gradient_stays_sparse(way):
    """Its values are those of the dense gradient."""
    sparse, dense = gradient_of_a_table(way, sparse=True), gradient_of_a_table(way, sparse=False)

    assert sparse.is_sparse
    assert torch.equal(sparse.to_dense(), dense)


@pytest.mark.parametrize("way", [nullcontext, Watched], ids=["eager", "general"])
@pytest.mark.parametrize("key", [None, random.key(KEY)], ids=["drawn", "given"])
def test_backward_needs_next_to_no_memory(layer, way, key):
    """Between forward and backward a call keeps at most 16 bytes, on the fast path and by the operator."""
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), way():
        output = layer.function(example(layer, requires_grad=True), 0.5, True, key=key)
    kept += [value for value in flat(vars(output.grad_fn)) if isinstance(value, Tensor)]

    assert sum(tensor.untyped_storage().nbytes() for tensor in kept) <= 16


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for part in value for leaf in flat(part)] if isinstance(value, (tuple, list)) else [value]


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoint_recomputes_the_same_mask(layer, use_reentrant):
    """The gradient of a checkpointed region has the mask of its output."""
    x = example(layer, requires_grad=True)
    torch.manual_seed(1)
    key = random.draw()

    torch.manual_seed(1)
    output = checkpoint(lambda x: layer.function(x * 1, 0.5, True), x, use_reentrant=use_reentrant)
    torch.rand(100)
    output.sum().backward()

    assert torch.equal(output, layer.function(x, 0.5, True, key=key))
    assert same(x.grad, slope(layer, key))


@pytest.mark.keeps_or_drops
def test_vmap_requires_a_choice_of_randomness(layer):
    """In error mode a call that draws raises; one that does not draw works."""
    x = torch.stack([example(layer)] * 3)

    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(lambda x: layer.function(x, 0.5, True))(x)
    for arguments in ((0.0, True), (1.0, True), (0.5, False)):
        torch.vmap(lambda x, arguments=arguments: layer.function(x, *arguments))(x)
    torch.vmap(lambda x: layer.function(x, 0.5, True, key=KEY))(x)


def test_vmap_slices_have_the_masks_asked_for(layer):
    """Under "same" all slices share a mask; under "different" each has its own, even where the input is not batched."""
    x = example(layer)

    def drop(_, x, inplace=False):
        return layer.function(x.clone(), 0.5, True, inplace)

    for inplace in (False, True):
        batch = torch.arange(3), torch.stack([x] * 3), inplace
        first, second, third = torch.vmap(drop, in_dims=(0, 0, None), randomness="same")(*batch)
        assert torch.equal(first, second)
        assert torch.equal(first, third)
        first, second, third = torch.vmap(drop, in_dims=(0, 0, None), randomness="different")(*batch)
        assert len({tuple(slice.flatten().tolist()) for slice in (first, second, third)}) == 3
    slices = torch.vmap(drop, in_dims=(0, None), randomness="different")(torch.arange(3), x)
    assert len({tuple(slice.flatten().tolist()) for slice in slices}) == 3


def test_vmap_over_keys_gives_what_each_key_gives(layer):
    """A batch of keys makes a batch of masks, each of its key, with its gradient."""
    x, keys = example(layer), random.split(KEY, 3)

    def total(x, key):
        return layer.function(x, 0.5, True, key=key).sum()

    outputs = torch.vmap(lambda key: layer.function(x, 0.5, True, key=key))(keys)
    grads = torch.vmap(torch.func.grad(total), in_dims=(None, 0))(x, keys)

    for output, grad, key in zip(outputs, grads, keys, strict=True):
        assert torch.equal(output, layer.function(x, 0.5, True, key=key))
        assert same(grad, slope(layer, key))


def test_function_transforms_give_the_slope(layer):
    """torch.func's grad, vjp and jvp give the derivative of the call that they make."""
    x = example(layer)

    def call(x):
        return layer.function(x, 0.5, True, key=KEY)

    assert same(torch.func.grad(lambda x: call(x).sum())(x), slope(layer))
    assert same(torch.func.vjp(call, x)[1](torch.ones_like(x))[0], slope(layer))
    assert same(torch.func.jvp(call, (x,), (torch.ones_like(x),))[1], slope(layer))
    assert same(torch.func.jacrev(call)(x).flatten().view(x.numel(), -1).diagonal().view(x.shape), slope(layer))


@pytest.mark.keeps_or_drops
def test_function_transforms_nest(layer):
    """The second derivative of the sum of y ** 3, where y has the slope s, is 6 y s ** 2."""
    x = example(layer)

    def cubes(x):
        return layer.function(x, 0.5, True, key=KEY).pow(3).sum()

    second = torch.func.grad(lambda x: torch.func.grad(cubes)(x).sum())(x)

    assert same(second, 6 * layer.function(x, 0.5, True, key=KEY) * slope(layer) ** 2)
