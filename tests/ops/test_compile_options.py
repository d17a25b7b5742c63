"""Compiler options that move, fold or rewrite operations: the masks stay those of eager mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.compare import agree, compiled, observe
from torch import Tensor
from torch._dynamo import compiled_autograd

from dropkit import nn
from dropkit.functional import dropout

X = torch.arange(1.0, 49.0).view(8, 6)
LEARNED = X.clone().requires_grad_()


def program(x: Tensor) -> tuple[Tensor, Tensor]:
    return dropout(dropout(x * 2, 0.3).relu(), 0.4), dropout(x, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [
        {"cpp_wrapper": True},
        {"memory_planning": True},
        {"graph_partition": False},
        {"allow_buffer_reuse": False},
        {"fx_graph_cache": False},
    ],
    ids=lambda option: "=".join(map(str, *option.items())),
)
def test_inductors_options_change_no_mask(option):
    """Masks do not depend on inductor's options, including those that call operators from C++."""
    with torch._inductor.config.patch(option):
        assert agree(observe(compiled(program, "inductor"), LEARNED), observe(program, LEARNED))


def test_freezing_folds_no_draw():
    """A draw without tensor arguments is not folded into a constant: with frozen weights each call has its own mask."""
    network = torch.nn.Sequential(torch.nn.Linear(6, 6, bias=False), nn.Dropout(0.5)).requires_grad_(False).eval()
    network[1].train()

    with torch.no_grad(), torch._inductor.config.patch(freezing=True):
        fast = compiled(network, "inductor")
        (first, *_), second, third = observe(fast, X), fast(X), fast(X)

    assert torch.equal(first == 0, observe(network, X)[0] == 0)
    assert not torch.equal(second == 0, third == 0)


# torch's compiled autograd reads `.grad` of tensors that are not leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.skipif(torch.__version__ < "2.11", reason="torch 2.10's compiled autograd reads no named tuples")
@pytest.mark.parametrize("forward", [None, "aot_eager"], ids=str)
def test_compiled_autograd_keeps_each_calls_mask(forward):
    """A separately compiled backward pass gets the key of its forward pass, not that of the first forward pass."""
    function: Any = program if forward is None else compiled(program, forward)
    torch._dynamo.reset()

    for key in (5, 6, 7):
        with compiled_autograd._enable(torch.compile(backend="aot_eager", fullgraph=True)):
            keyed = observe(lambda x, key=key: dropout(x, 0.5, key=key), LEARNED)
            drawn = observe(function, LEARNED)
        assert agree(keyed, observe(lambda x, key=key: dropout(x, 0.5, key=key), LEARNED))
        assert agree(drawn, observe(program, LEARNED))


@pytest.mark.parametrize("taken", [True, False])
def test_branches_draw_when_they_are_taken(taken):
    """A draw in a branch of torch.cond keeps its place between the draws around it."""

    def branches(x: Tensor, taken: Tensor) -> Tensor:
        x = dropout(x, 0.3)
        more = torch.cond(taken, lambda x: dropout(x, 0.2) * 2, lambda x: dropout(dropout(x, 0.2), 0.2), (x,))
        return dropout(more, 0.3)

    inputs = X, torch.tensor(taken)
    assert agree(observe(compiled(branches), *inputs), observe(branches, *inputs))
