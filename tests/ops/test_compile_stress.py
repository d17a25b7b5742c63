"""Generated programs: small graphs of exact operators and dropouts must have the same effects compiled and eager.

All numbers are small integers times powers of two, so that no order of additions changes a bit. DROPKIT_EXAMPLES=1000
makes as many programs, others each time, in place of a few that are always the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from helpers.compare import agree, compiled, observe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dropkit import random
from dropkit.functional import dropout, dropout1d, dropout2d

EXAMPLES = os.environ.get("DROPKIT_EXAMPLES")

Step = tuple[Any, ...]
Drop = Callable[..., Tensor]


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=int(EXAMPLES or examples),
        derandomize=EXAMPLES is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


# Each takes a tensor, a key and a rate, which is 0.5.
DROPS: dict[str, Drop] = {
    "drop": lambda x, key, p, **more: dropout(x, 0.5, **more),
    "drop more": lambda x, key, p, **more: dropout(x, 0.75, **more),
    "drop all": lambda x, key, p, **more: dropout(x, 1.0, **more),
    "drop none": lambda x, key, p, **more: dropout(x, 0.0, **more),
    "drop rows": lambda x, key, p, **more: dropout1d(x, 0.5, **more),
    "drop channels": lambda x, key, p, **more: dropout2d(x[:, :, None, None], 0.5, **more)[:, :, 0, 0],
    "drop by key": lambda x, key, p, **more: dropout(x, 0.5, key=key, **more),
    "drop by derived key": lambda x, key, p, **more: dropout(x, 0.5, key=random.fold_in(key, 3), **more),
    "drop by drawn key": lambda x, key, p, **more: dropout(x, 0.5, key=random.draw(), **more),
    "drop at": lambda x, key, p, **more: dropout(x, p, **more),
}
VIEWS: dict[str, Drop] = {
    "transpose": lambda x, key, p: x.mT,
    "reshape": lambda x, key, p: x.reshape(x.shape[1], x.shape[0]),
    "slice": lambda x, key, p: x[: max(1, x.shape[0] - 1), :],
    "every other": lambda x, key, p: x[:, ::2],
}
NEW: dict[str, Drop] = {
    "relu": lambda x, key, p: torch.relu(x),
    "double": lambda x, key, p: x * 2,
}
STEPS = {**DROPS, **VIEWS, **NEW}
SHARING = (*VIEWS, "drop none")  # what these return may have the memory of what they read

number = st.integers(0, 9)
program = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(list(DROPS)), number),
        st.tuples(st.sampled_from([*VIEWS, *NEW]), number),
        st.tuples(st.just("add"), number, number),
        st.tuples(st.just("in place"), number, st.sampled_from(list(DROPS))),
        st.tuples(st.just("checkpoint"), number, st.lists(st.sampled_from(list(STEPS)), min_size=1, max_size=4)),
    ),
    min_size=1,
    max_size=8,
)


def execute(steps: Sequence[Step], results: Sequence[int], x: Tensor, key: Tensor, p: Tensor) -> list[Tensor]:
    """Run the steps, each of which reads earlier tensors by number and adds a tensor; return the last and `results`."""
    made = [(x, False)]
    for name, place, *more in steps:
        tensor, writable = made[place % len(made)]
        if name == "add":
            other, _ = made[more[0] % len(made)]
            made.append((tensor + (other if other.shape == tensor.shape else tensor), True))
        elif name == "in place":
            # The input and the output that relu saves for its gradient must not be written.
            target = tensor if writable else tensor * 2
            made.append((DROPS[more[0]](target, key, p, inplace=True), True))
        elif name == "checkpoint":
            # A copy, which nothing else reads.
            made.append((checkpoint(chain, more[0], tensor * 2, key, p, use_reentrant=False) + 0, True))
        else:
            made.append((STEPS[name](tensor, key, p), writable if name in SHARING else name != "relu"))
    # Return all of them, since a dropout with an unused result is removed with its draw.
    total = sum(tensor.sum() for tensor, _ in made[1:])
    return [total, *(made[place % len(made)][0] * 2 for place in results)]


def chain(names: Sequence[str], x: Tensor, key: Tensor, p: Tensor) -> Tensor:
    for name in names:
        x = STEPS[name](x, key, p)
    return x


def agrees(backend: str, steps: Sequence[Step], results: Sequence[int], dynamic: bool | None = None) -> bool:
    def function(x: Tensor, key: Tensor, p: Tensor) -> list[Tensor]:
        return execute(steps, results, x, key, p)

    inputs = torch.arange(-12.0, 12.0).view(6, 4).requires_grad_(), torch.tensor(5), torch.tensor(0.5)
    return agree(observe(compiled(function, backend, dynamic), *inputs), observe(function, *inputs))


@pytest.mark.slow
@fuzz(25)
@given(program, st.lists(number, max_size=3))
def test_partitioned_programs_equal_eager_ones(steps, results):
    """Split into forward and backward with few saved tensors, recomputed dropouts have their first mask."""
    assert agrees("aot_eager_decomp_partition", steps, results)


@pytest.mark.slow
@fuzz(10)
@given(program, st.lists(number, max_size=3))
def test_programs_of_any_size_equal_eager_ones(steps, results):
    """The same with symbolic sizes."""
    assert agrees("aot_eager_decomp_partition", steps, results, dynamic=True)


@pytest.mark.slow
@fuzz(6)
@given(program, st.lists(number, max_size=3))
def test_inductors_programs_equal_eager_ones(steps, results):
    """The same through inductor, which also fuses, plans memory and orders calls."""
    assert agrees("inductor", steps, results)
