"""Activation checkpointing: the second run of a region has the masks of the first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.compare import agree, compiled, observe
from torch import Tensor
from torch._functorch import config
from torch.distributed._composable import checkpoint as composable
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    set_checkpoint_early_stop,
)

import dropkit
from dropkit import random
from dropkit.functional import dropout, dropout2d

X = torch.arange(-24.0, 24.0).view(8, 6).requires_grad_()
WEIGHT = (torch.eye(6) * 2).requires_grad_()
WAYS = (None, "aot_eager", "inductor")
ways = pytest.mark.parametrize("backend", WAYS, ids=str)


def network(x: Tensor, weight: Tensor) -> Tensor:
    """Dropout between operators that are saved and operators that are not; small numbers keep float32 exact."""
    x = dropout(torch.relu(dropout(x @ weight, 0.5) * 2), 0.75)
    return dropout(x @ weight, 0.5)


def keyed(x: Tensor, weight: Tensor) -> Tensor:
    first, second = random.split(7)
    return dropout(torch.relu(dropout(x @ weight, 0.5, key=first) @ weight), 0.75, key=second)


def through(function: Callable[..., Any], backend: str | None) -> Callable[..., Any]:
    return function if backend is None else compiled(function, backend)


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["graph", "reentrant"])
@ways
def test_a_checkpointed_region_has_one_mask(backend, use_reentrant):
    """Outputs, gradients and the generator's state are those of the same network without checkpoints."""

    def region(x, weight):
        x = checkpoint(network, x, weight, use_reentrant=use_reentrant)
        return dropout(x, 0.5), checkpoint(network, x, weight, use_reentrant=use_reentrant)

    def plain(x, weight):
        x = network(x, weight)
        return dropout(x, 0.5), network(x, weight)

    assert agree(observe(through(region, backend), X, WEIGHT), observe(plain, X, WEIGHT))


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["graph", "reentrant"])
@ways
def test_a_given_key_needs_no_generator_state(backend, use_reentrant):
    """With keys, the second run does not depend on the generator."""

    def region(x, weight):
        return checkpoint(keyed, x, weight, use_reentrant=use_reentrant, preserve_rng_state=False)

    assert agree(observe(through(region, backend), X, WEIGHT), observe(keyed, X, WEIGHT))


@pytest.mark.parametrize("backend", WAYS[1:])
def test_a_compiled_region_draws_once_whatever_is_preserved(backend):
    """The compiler saves the keys that a region drew, so the second run needs no restored generator."""

    def region(x, weight):
        return checkpoint(network, x, weight, use_reentrant=False, preserve_rng_state=False)

    assert agree(observe(compiled(region, backend), X, WEIGHT), observe(network, X, WEIGHT))


def recompute_all(*_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_RECOMPUTE


def products_saved(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    saved = operator is torch.ops.aten.mm.default
    return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE


def masks_saved(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    saved = operator in (torch.ops.dropkit.drop_v1.default, torch.ops.dropkit.draw_v1.default)
    return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.MUST_RECOMPUTE


@pytest.mark.parametrize("policy", [recompute_all, products_saved, masks_saved], ids=lambda policy: policy.__name__)
@ways
def test_selective_checkpoints_have_one_mask(backend, policy):
    """Whatever a policy saves, the backward pass sees the masks of the forward pass."""
    contexts = partial(create_selective_checkpoint_contexts, policy)

    def region(x, weight):
        return checkpoint(network, x, weight, use_reentrant=False, context_fn=contexts)

    assert agree(observe(through(region, backend), X, WEIGHT), observe(network, X, WEIGHT))


# What torch does not restore for the second run, so that dropkit has to give the keys of the first.
UNRESTORED = {"use_reentrant": False, "preserve_rng_state": False}


@pytest.mark.parametrize("inner", [None, False, True], ids=["", "graph inside", "reentrant inside"])
@pytest.mark.parametrize("use_reentrant", [False, True], ids=["graph", "reentrant"])
@pytest.mark.parametrize("own", [False, True], ids=["unrestored", "generator"])
def test_a_region_that_torch_does_not_restore_has_one_mask(own, use_reentrant, inner):
    """Later runs have the keys of the first, also without restored state and with a generator of the caller's."""

    def regions(x, weight, checkpoint=checkpoint):
        generator = torch.Generator().manual_seed(4) if own else None

        def network(x, weight):
            x = dropout(x @ weight, 0.5, generator=generator)
            return dropout2d((x * 2).view(4, 2, 6, 1), 0.5, generator=generator).view(8, 6) @ weight

        def nested(x, weight):
            again = {"use_reentrant": inner, "preserve_rng_state": own}
            return network(checkpoint(network, x, weight, **again), weight) if inner is not None else network(x, weight)

        for _ in range(2):
            x = checkpoint(nested, x, weight, use_reentrant=use_reentrant, preserve_rng_state=own)
        return x, generator.get_state() if own else x

    plain = partial(regions, checkpoint=lambda function, *inputs, **_: function(*inputs))
    assert agree(observe(regions, X, WEIGHT), observe(plain, X, WEIGHT))


def by_gradients(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Run two backward passes over one graph."""

    def both(x, weight):
        y = function(x, weight)
        first = torch.autograd.grad(y.sum(), (x, weight), retain_graph=True)
        return y.detach(), *first, *torch.autograd.grad((y * 2).sum(), (x, weight))

    return both


def offloaded(x: Tensor, weight: Tensor) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        return network(x, weight)


def drawn(x: Tensor, weight: Tensor) -> Tensor:
    return dropout(x @ weight, 0.5, key=random.draw()) @ weight


def constant(x: Tensor, weight: Tensor) -> Tensor:
    """Only the factor of the dropped tensor requires grad."""
    return dropout(torch.ones(8, 6), 0.5) @ weight + x


def mapped(x: Tensor, weight: Tensor) -> Tensor:
    different = torch.vmap(lambda row: dropout(row, 0.5), randomness="different")
    return dropout(different(x @ weight), 0.5) @ weight


@pytest.mark.parametrize("early", [True, False], ids=["", "whole"])
@pytest.mark.parametrize("function", [network, offloaded, drawn, constant, mapped], ids=lambda f: f.__name__)
def test_each_later_run_has_the_keys_of_the_first(function, early):
    """Later runs have the first keys with early stop, two backward passes, own hooks, keys drawn by hand, and vmap."""
    with set_checkpoint_early_stop(early):
        again = observe(by_gradients(lambda x, weight: checkpoint(function, x, weight, **UNRESTORED)), X, WEIGHT)

    assert agree(again, observe(by_gradients(function), X, WEIGHT))


@pytest.mark.parametrize("policy", [recompute_all, masks_saved], ids=lambda policy: policy.__name__)
def test_an_unrestored_selective_checkpoint_has_one_mask(policy):
    """The mask is the same whether the policy saves a draw or not."""
    contexts = partial(create_selective_checkpoint_contexts, policy)

    def region(x, weight):
        return checkpoint(network, x, weight, context_fn=contexts, **UNRESTORED)

    assert agree(observe(region, X, WEIGHT), observe(network, X, WEIGHT))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_code_in_an_unrestored_region_has_one_mask(backend):
    """A compiled function inside an eager checkpoint keeps its mask, also torch's own dropout under install."""
    fast = compiled(network, backend)

    assert agree(
        observe(lambda x, weight: checkpoint(fast, x, weight, **UNRESTORED), X, WEIGHT), observe(network, X, WEIGHT)
    )


def test_an_unrestored_region_under_install_has_one_mask():
    """Under install the mask is kept, also for the dropout that C++ calls inside attention."""

    def network(x, weight):
        x = F.dropout(x @ weight, 0.5).view(1, 8, 6)
        return F.scaled_dot_product_attention(torch.zeros_like(x), torch.zeros_like(x), x, dropout_p=0.5)

    with dropkit.installed():
        again = observe(lambda x, weight: checkpoint(network, x, weight, **UNRESTORED), X, WEIGHT)
        assert agree(again, observe(network, X, WEIGHT))


def test_a_composable_checkpoint_has_one_mask():
    """The mask is kept in torch.distributed's checkpoint, which starts and ends its region in module hooks."""

    class Network(torch.nn.Module):
        def forward(self, x, weight):
            return network(x, weight)

    region = composable(Network(), preserve_rng_state=False)

    assert agree(observe(region, X, WEIGHT), observe(network, X, WEIGHT))


def test_a_derivative_inside_of_a_region_has_the_mask_of_its_function():
    """A derivative inside a region runs the region again before its first run has ended."""
    drops: list[Tensor] = []

    def region(x, weight):
        drops.append(dropout(torch.ones_like(x), 0.5))
        y = x @ weight * drops[-1]
        (grad,) = torch.autograd.grad((y**3).sum(), y, create_graph=True)
        return dropout(grad, 0.5) * y

    with set_checkpoint_early_stop(False):
        output, *_, of_x, _, _ = observe(lambda x, weight: checkpoint(region, x, weight, **UNRESTORED), X, WEIGHT)

    assert len(drops) > 2
    assert all(torch.equal(drop, drops[0]) for drop in drops)
    assert torch.equal(of_x != 0, (output != 0) & (X != 0))


def test_a_later_run_draws_once_for_each_key():
    """If torch restores its generator, the other random numbers of a region are the same in both runs."""
    noise: list[Tensor] = []

    def region(x):
        x = dropout(dropout(x.exp(), 0.5).exp(), 0.5)
        noise.append(torch.rand(4))
        if len(noise) > 1:  # a key that the first run did not draw
            before = torch.get_rng_state()
            random.draw()
            after = torch.get_rng_state()
            torch.set_rng_state(before)
            torch.randint(-(2**63), 2**63 - 1, ())
            assert torch.equal(torch.get_rng_state(), after)
        return x.exp().exp()

    checkpoint(region, torch.zeros(8, requires_grad=True), use_reentrant=False).sum().backward()

    assert len(noise) == 2
    assert torch.equal(*noise)


def test_a_draw_that_the_first_run_did_not_make_is_refused():
    """A later draw that cannot repeat raises an error that says what to do."""
    runs: list[int] = []

    def region(x):
        runs.append(1)
        return dropout(x.exp(), 0.5).exp() if len(runs) > 1 else x.exp().exp()

    output = checkpoint(region, torch.ones(8, requires_grad=True), **UNRESTORED)

    with pytest.raises(RuntimeError, match=r"draws a key as it is computed again that it did not draw .* pass key="):
        output.sum().backward()


CHANNELS = X.detach().view(4, 2, 3, 2).clone().requires_grad_()


@pytest.mark.parametrize("backend", [None, "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)], ids=str)
def test_every_combination_has_one_mask(backend):
    """The mask is kept for each kind of checkpoint and layer, with the state restored or not."""
    select = {"context_fn": partial(create_selective_checkpoint_contexts, recompute_all)}
    ways = [{"use_reentrant": False}, {"use_reentrant": True}, {"use_reentrant": False, **select}]
    every = [(how, preserve) for how in ways for preserve in (True, False)]

    def region(drop, x):
        return drop(drop(x * 2, 0.5).relu(), 0.5) * 4

    def regions(x):
        return [
            checkpoint(partial(region, drop), x, preserve_rng_state=preserve, **how)
            for how, preserve in every
            for drop in (dropout, dropout2d)
        ]

    def plain(x):
        return [region(drop, x) for _ in every for drop in (dropout, dropout2d)]

    assert agree(observe(through(regions, backend), CHANNELS), observe(plain, CHANNELS))


def has_one_mask(drop: Callable[..., Tensor], backend: str, budget: float, region: bool = False) -> bool:
    """Whether the gradient is zero exactly where the output is, compiled with a memory budget."""

    def chain(x):
        with torch.autograd.graph.region_activation_memory_budget(budget) if region else nullcontext():
            return drop(drop(x.exp(), 0.3) * 2, 0.2) ** 2

    with config.patch(activation_memory_budget=1.0 if region else budget):
        output, _, grad, _ = observe(compiled(chain, backend), torch.rand(64, 32, requires_grad=True))
    return torch.equal(output == 0, grad == 0)


PARTITIONED = ("aot_eager_decomp_partition", "inductor")


@pytest.mark.parametrize("budget", [1.0, 0.5, 0.01, 0.0])
@pytest.mark.parametrize("backend", PARTITIONED)
def test_a_memory_budget_keeps_the_mask(backend, budget):
    """With any memory budget the backward pass has the masks of the forward pass."""
    assert has_one_mask(dropout, backend, budget)


@pytest.mark.skipif(not hasattr(torch.autograd.graph, "region_activation_memory_budget"), reason="new in torch 2.13")
@pytest.mark.parametrize("backend", PARTITIONED)
def test_a_regions_memory_budget_keeps_the_mask(backend):
    """The same holds if a part of a program has a budget of its own."""
    assert has_one_mask(dropout, backend, 0.0, region=True)


def test_torchs_own_dropout_loses_its_mask_where_ours_does_not():
    """torch's own dropout fails the two tests above; when this test fails, torch has been fixed."""
    assert has_one_mask(F.dropout, "aot_eager_decomp_partition", 1.0)
    assert not has_one_mask(F.dropout, "aot_eager_decomp_partition", 0.5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_key_that_is_drawn_in_inference_mode_is_kept(reentrant):
    """The second run of a region gets a key that the first drew in inference mode."""
    own = torch.Generator().manual_seed(0)

    def region(x):
        with torch.inference_mode():
            key = random.draw(own)
        return dropout(x.exp().log(), 0.5, key=int(key))

    weight = torch.ones(200, requires_grad=True)
    output = checkpoint(region, weight, use_reentrant=reentrant, preserve_rng_state=False)
    output.sum().backward()

    assert torch.equal(weight.grad != 0, output != 0)
