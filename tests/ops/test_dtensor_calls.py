"""Every way to call dropout has, on a DTensor, the bits that it has on the whole tensor in one process.

Eager and compiled, by dropkit's functions and modules, fused functions, and torch's own under `installed()`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.compare import compiled
from helpers.dtensors import equal, mesh_of, shared
from torch import Tensor
from torch.distributed.tensor import Replicate, Shard
from torch.utils.checkpoint import checkpoint

import dropkit
from dropkit import functional, nn

CALLS: dict[str, Callable[..., Any]] = {
    "function": lambda x, _: functional.dropout(functional.dropout(x, 0.4), 0.3),
    "module": lambda x, _: nn.Dropout1d(0.4)(x),
    "int key": lambda x, _: functional.drop_path(x, 0.4, key=5),
    "tensor key": lambda x, _: functional.alpha_dropout(x, 0.4, True, key=torch.tensor(5)),
    "in place": lambda x, _: functional.dropout(x * 1, 0.4, inplace=True),
    "rate in a tensor": lambda x, _: functional.dropout(x, torch.tensor(0.4)),
    "p = 0": lambda x, _: functional.dropout(x, 0.0) * 1,
    "p = 1": lambda x, _: functional.dropout(x, 1.0),
    "not training": lambda x, _: functional.dropout(x, 0.4, False) * 1,
    "dropout_add": lambda x, residual: functional.dropout_add(x, residual, 0.4),
    "dropout_add_norm": lambda x, residual: functional.dropout_add_norm(x, residual, p=0.4),
    "bias_act_dropout_add": lambda x, residual: functional.bias_act_dropout_add(x, None, residual, 0.4),
    "checkpoint": lambda x, _: checkpoint(lambda x: functional.dropout(x * 2, 0.4) * 2, x, use_reentrant=False),
    "F.dropout": lambda x, _: F.dropout(F.dropout(x, 0.4), 0.3),
    "F.dropout in place": lambda x, _: F.dropout(x * 1, 0.4, inplace=True),
    "F.alpha_dropout": lambda x, _: F.alpha_dropout(x, 0.4, True),
    "F.dropout1d": lambda x, _: F.dropout1d(x, 0.4),
    "F.feature_alpha_dropout": lambda x, _: F.feature_alpha_dropout(x, 0.4, True),
    "nn.Dropout": lambda x, _: torch.nn.Dropout(0.4)(x),
}
ONLY_EAGER: dict[str, Callable[..., Any]] = {
    "generator": lambda x, _: functional.dropout(x, 0.4, generator=torch.Generator().manual_seed(3)),
    "reentrant checkpoint": lambda x, _: checkpoint(lambda x: functional.dropout(x, 0.4) * 2, x, use_reentrant=True),
    "vmap": lambda x, _: torch.vmap(lambda x: functional.dropout(x, 0.4, key=3))(x),
    "second derivative": lambda x, _: torch.autograd.grad(
        functional.dropout(x, 0.4, key=3).pow(3).sum(), x, create_graph=True
    )[0],
    "attention": lambda x, _: F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.4),
    "inference mode": torch.inference_mode()(lambda x, _: F.dropout(functional.dropout(x, 0.4), 0.3)),
    "native_dropout": lambda x, _: torch.native_dropout(x, 0.4, True),
}
COMPILED = {
    "aot_eager": functools.partial(compiled, backend="aot_eager"),
    "dynamic": functools.partial(compiled, backend="aot_eager", dynamic=True),
    "inductor": functools.partial(compiled, backend="inductor"),
}


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(5, 3, 7, generator=generator).requires_grad_() for _ in range(2)]


def observe(function: Callable[..., Any], inputs: list[Any]) -> tuple[list[Any], list[Any], Tensor]:
    """Outputs, gradients and the generator's state after a call from seed 7."""
    torch.manual_seed(7)
    outputs = function(*inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    state = torch.get_rng_state()
    differentiable = [output for output in outputs if output.requires_grad]
    torch.autograd.backward(differentiable, [torch.full_like(output, 2.0) for output in differentiable])
    return outputs, [input.grad for input in inputs if input.grad is not None], state


def check_call(name: str, backend: str | None) -> None:
    function = (CALLS | ONLY_EAGER)[name]
    mesh = mesh_of((2,))
    # Sums over a dimension that is sharded are rounded otherwise.
    placements = (Shard(0), Replicate()) if name == "attention" else (Shard(0), Shard(1), Replicate())
    for placement in placements if backend is None else (Shard(1),):
        with dropkit.installed():
            expected, expected_grads, expected_state = observe(function, whole := inputs())
            parts = [shared(tensor.detach(), mesh, (placement,)).requires_grad_() for tensor in whole]
            call = function if backend is None else COMPILED[backend](function)
            outputs, grads, state = observe(call, parts)
        assert torch.equal(state, expected_state), placement
        # Compiled with symbolic sizes, torch 2.10 gets the strides of any DTensor wrong.
        stride = COMPILED[backend](lambda x: x * 1)(parts[0]).stride() if backend == "dynamic" else None
        assert all(equal(*pair, stride) for pair in zip(outputs, expected, strict=True)), placement
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            assert torch.equal(grad.full_tensor(), expected_grad), placement


@pytest.mark.parametrize("name", [*CALLS, *ONLY_EAGER])
def test_eager_calls_are_those_of_one_process(name, groups):
    """Outputs, gradients and the generator's state are bit for bit those of the whole tensor."""
    groups[2].run(check_call, name, None)


@pytest.mark.slow
@pytest.mark.parametrize("backend", COMPILED)
def test_compiled_calls_are_those_of_one_process(backend, groups):
    """One graph, of any backend and with symbolic sizes too, does on a DTensor what eager mode does on the whole."""
    names = list(CALLS) if backend == "aot_eager" else ["function", "rate in a tensor", "F.dropout1d"]
    groups[2].run(check_compiled, names, backend, limit=300)


def check_compiled(names: list[str], backend: str) -> None:
    for name in names:
        check_call(name, backend)


def check_cached_code(is_installed: bool) -> None:
    mesh, rank = mesh_of((2,)), torch.distributed.get_rank()
    part = shared(torch.ones(4, 6), mesh, (Shard(0),))
    function = F.dropout if is_installed else functional.dropout
    call = COMPILED["inductor"](lambda x: function(x, 0.4))
    for turn in range(2):
        if rank == turn:
            with dropkit.installed() if is_installed else nullcontext():
                torch.manual_seed(7)
                output = call(part)
        torch.distributed.barrier()
    torch.manual_seed(7)
    assert equal(output, functional.dropout(torch.ones(4, 6), 0.4))


@pytest.mark.slow
@pytest.mark.parametrize("is_installed", [False, True])
def test_a_rank_does_not_run_the_cached_code_of_another(is_installed, groups):
    """Ranks that compile one after the other share torch's cache on disk, and still have masks of their own."""
    groups[2].run(check_cached_code, is_installed)
