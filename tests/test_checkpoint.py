"""Activation checkpointing: what is computed again for the backward pass has the masks of the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from observed import agree, compiled, observe
from torch import Tensor
from torch._functorch import config
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from dropkit import random
from dropkit.functional import dropout

X = torch.arange(-24.0, 24.0).view(8, 6).requires_grad_()
WEIGHT = (torch.eye(6) * 2).requires_grad_()
WAYS = (None, "aot_eager", "inductor")
ways = pytest.mark.parametrize("backend", WAYS, ids=str)


def network(x: Tensor, weight: Tensor) -> Tensor:
    """Draws between operators that are saved and operators that are not; exact in float32, as all numbers are small."""
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
    """With keys, a region may be computed again whatever the generator did meanwhile."""

    def region(x, weight):
        return checkpoint(keyed, x, weight, use_reentrant=use_reentrant, preserve_rng_state=False)

    assert agree(observe(through(region, backend), X, WEIGHT), observe(keyed, X, WEIGHT))


@pytest.mark.parametrize("backend", WAYS[1:])
def test_a_compiled_region_draws_once_whatever_is_preserved(backend):
    """The compiler saves the keys that a region drew, so nothing is drawn again where no state is restored."""

    def region(x, weight):
        return checkpoint(network, x, weight, use_reentrant=False, preserve_rng_state=False)

    assert agree(observe(compiled(region, backend), X, WEIGHT), observe(network, X, WEIGHT))


def all_again(*_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_RECOMPUTE


def products_saved(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    saved = operator is torch.ops.aten.mm.default
    return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE


def masks_saved(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    saved = operator in (torch.ops.dropkit.drop_v1.default, torch.ops.dropkit.draw_v1.default)
    return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.MUST_RECOMPUTE


@pytest.mark.parametrize("policy", [all_again, products_saved, masks_saved], ids=lambda policy: policy.__name__)
@ways
def test_selective_checkpoints_have_one_mask(backend, policy):
    """Whatever a policy saves, the backward pass sees the masks of the forward pass."""
    contexts = partial(create_selective_checkpoint_contexts, policy)

    def region(x, weight):
        return checkpoint(network, x, weight, use_reentrant=False, context_fn=contexts)

    assert agree(observe(through(region, backend), X, WEIGHT), observe(network, X, WEIGHT))


def has_one_mask(drop: Callable[..., Tensor], backend: str, budget: float, region: bool = False) -> bool:
    """Whether the gradient is zero exactly where the output is, compiled for a share of the memory."""

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
    """However little a compiled program may save, its backward pass has the masks of its forward pass."""
    assert has_one_mask(dropout, backend, budget)


@pytest.mark.skipif(not hasattr(torch.autograd.graph, "region_activation_memory_budget"), reason="new in torch 2.13")
@pytest.mark.parametrize("backend", PARTITIONED)
def test_a_regions_memory_budget_keeps_the_mask(backend):
    """The same where a part of a program may save nothing."""
    assert has_one_mask(dropout, backend, 0.0, region=True)


def test_torchs_own_dropout_loses_its_mask_where_ours_does_not():
    """Why the two tests above exist; should this fail, torch is mended, and they show no difference any more."""
    assert has_one_mask(F.dropout, "aot_eager_decomp_partition", 1.0)
    assert not has_one_mask(F.dropout, "aot_eager_decomp_partition", 0.5)
