"""Compiled programs have the effects of eager ones, whatever the compiler merges, moves, fuses or removes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.compare import agree, compiled, graphs, observe
from torch import Tensor

import dropkit
from dropkit import nn, random
from dropkit.functional import alpha_dropout, dropout, dropout2d, gaussian_dropout

BACKENDS = ("aot_eager", "inductor")
PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
LEARNED = X.clone().requires_grad_()


def program(*inputs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function that must have the same effects compiled and eager, with its inputs."""

    def listed(function: Callable[..., Any]) -> Callable[..., Any]:
        PROGRAMS[function.__name__] = function, inputs
        return function

    return listed


@program(X)
def sizes_known_when_it_runs(x):
    return dropout(x[x > 0], 0.3)


@program(X)
def one_dropout(x):
    return dropout(x, 0.3)


@program(LEARNED)
def one_dropout_with_gradient(x):
    return dropout(x, 0.3)


@program(X)
def two_of_one_tensor(x):
    return dropout(x, 0.5), dropout(x, 0.5)


@program(LEARNED)
def two_of_one_tensor_with_gradient(x):
    return dropout(x, 0.5), dropout(x, 0.5)


@program(LEARNED)
def six_in_a_network(x):
    for _ in range(3):
        x = dropout(dropout(x, 0.1).relu(), 0.3)
    return x


@program(LEARNED)
def in_place(x):
    x = x * 2
    y = dropout(x, 0.3, inplace=True)
    return y, alpha_dropout(x, 0.3, inplace=True)


@program(X)
def mutated_input(x):
    dropout(x, 0.3, inplace=True)
    return x * 2


@program(LEARNED)
def mutated_view(x):
    x = x * 2
    dropout(x[2:5], 0.3, inplace=True)
    return x


@program(LEARNED, 5)
def int_key(x, key):
    return dropout(x, 0.3, key=key)


@program(LEARNED, torch.tensor(-5))
def derived_keys(x, key):
    first, second = random.split(key)
    return dropout(x, 0.3, key=random.fold_in(first, 3)), dropout(x, 0.3, key=second), random.fold_in(key, 2**62)


@program(LEARNED)
def drawn_key(x):
    key = random.draw()
    return dropout(x, 0.3, key=key), dropout(x, 0.3), key, random.draw()


@program(LEARNED)
def unused_before_used(x):
    dropout(x, 0.3)
    dropout2d(x[None, :, :, None], 0.4)
    return dropout(x, 0.5)


@program(LEARNED, torch.tensor(0.4))
def scheduled(x, p):
    return dropout(x, p), alpha_dropout(x, p)


@program(LEARNED)
def strided(x):
    return dropout(x.mT, 0.3), dropout(x[::2, 1:], 0.3), dropout(x[:, :1].expand(8, 3), 0.3)


@program(LEARNED, torch.randn(100, 60), torch.randn(3, 5))
def various_sizes(x, large, small):
    a, b, c = dropout(large, 0.3), dropout(x, 0.3), dropout(small, 0.3)
    d, e, f = dropout(a, 0.3), dropout(b, 0.3), dropout(c, 0.3)
    return f, b, e, a, d


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_equals_eager(name, backend, dynamic):
    """Outputs, changed inputs, gradients and the generator's state are those of the eager call."""
    function, inputs = PROGRAMS[name]

    assert agree(observe(compiled(function, backend, dynamic), *inputs), observe(function, *inputs))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("input", [X, LEARNED], ids=["plain", "learned"])
def test_equal_calls_have_different_masks(input, backend):
    """Two equal calls draw two keys, and two more in the next call."""
    twice = compiled(two_of_one_tensor, backend)

    outputs = [*twice(input), *twice(input)]

    assert len({tuple(output.flatten().tolist()) for output in outputs}) == 4


class Scheduled(torch.nn.Module):
    """A module with its rate in a tensor, so that it can change between calls."""

    def __init__(self, registered: bool) -> None:
        super().__init__()
        self.layer = nn.Dropout()
        if registered:
            del self.layer.p
            self.layer.register_buffer("p", torch.tensor(0.5))
        else:
            self.layer.p = torch.tensor(0.5)

    def forward(self, input: Tensor) -> Tensor:
        return self.layer(input * 2)


@pytest.mark.parametrize("registered", [False, True], ids=["attribute", "buffer"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_modules_rate_may_be_a_tensor(backend, registered):
    """Filling the tensor changes the rate of the compiled module; at 0 and 1 it draws no key, as in eager mode."""
    module = Scheduled(registered)
    fast = compiled(module, backend)

    for p in (0.1, 0.0, 0.9, 1.0):
        module.layer.p.fill_(p)
        with torch._dynamo.config.patch(error_on_recompile=p != 0.1):
            assert agree(observe(fast, LEARNED), observe(module, LEARNED))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wrong_rate_is_refused_when_the_graph_runs(backend):
    """Each call checks the tensor's value, with torch's error message."""
    fast = compiled(scheduled, backend)
    fast(X, torch.tensor(0.5))

    for p in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"dropout probability has to be between 0 and 1, but got {p}"):
            fast(X, torch.tensor(p, dtype=torch.float64))


def test_what_changes_from_call_to_call_takes_two_graphs_at_most():
    """Int keys and mask offsets become symbols at the second value; keys and rates in tensors are one graph."""

    def from_offset(x, offset):
        return torch.ops.dropkit.drop_v1(x, torch.tensor(3), 2**31, 2.0, 0.0, 0.0, (6, 1), offset)

    assert graphs(int_key, [(X, key) for key in (5, 12, -(2**63), 2**62)]) <= 2
    assert graphs(from_offset, [(X, offset) for offset in (5, 12, 2**40)]) <= 2
    assert graphs(dropout, [(X, torch.tensor(p)) for p in (0.3, 0.4, 1.0)]) == 1
    assert graphs(one_dropout, [(X.repeat(n, 1),) for n in (2, 3, 4, 5)]) <= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_call_of_a_nested_region_has_its_own_mask(backend):
    """A region that is compiled once and called three times draws three keys."""

    @torch.compiler.nested_compile_region
    def region(x):
        return dropout(x, 0.5) * 2

    def thrice(x):
        return region(x), region(x), region(x)

    seen = observe(compiled(thrice, backend), LEARNED)

    assert agree(seen, observe(thrice, LEARNED))
    assert len({tuple(output.flatten().tolist()) for output in seen[:3]}) == 3


def test_draws_keep_their_order_where_memory_decides():
    """Inductor reorders large allocations; the draws stay in the order of the program."""
    function, inputs = PROGRAMS["various_sizes"]

    with torch._inductor.config.patch(reorder_for_peak_memory=True):
        assert agree(observe(compiled(function, "inductor"), *inputs), observe(function, *inputs))


def test_draws_keep_their_place_among_torchs():
    """With inductor's `fallback_random`, torch's random numbers and the keys between them are those of eager mode."""

    def mixed(x):
        a, y = torch.rand(3), dropout(x, 0.3)
        b, z = torch.randn(3), dropout(y, 0.3)
        return a, b, z, torch.rand(3)

    with torch._inductor.config.patch(fallback_random=True):
        assert agree(observe(compiled(mixed, "inductor"), LEARNED), observe(mixed, LEARNED))


@pytest.mark.parametrize("drop", [dropout, F.dropout], ids=["dropkit", "torch"])
def test_a_trailing_draw_that_nothing_uses_is_removed(drop):
    """A limit: a dropout that no result depends on is removed from the graph, as torch's own is."""

    def trailing(x):
        y = drop(x, 0.3)
        drop(x, 0.4)
        return y

    *seen, state = observe(compiled(trailing), LEARNED)
    *expected, expected_state = observe(trailing, LEARNED)

    assert agree(seen, expected)
    assert not torch.equal(state, expected_state)


@pytest.mark.extension
def test_inductor_calls_the_kernel_itself():
    """Generated code calls dropkit's functions, not the dispatcher, except where inductor cannot plan the buffers."""
    from torch._inductor.utils import fresh_cache, run_and_get_code

    keyed = torch.vmap(lambda x, key: dropout(x, 0.5, key=key))
    with fresh_cache():  # the cache on disk may hold what another version of dropkit generated
        _, (fast,) = run_and_get_code(compiled(one_dropout, "inductor"), X)
        _, (noisy,) = run_and_get_code(compiled(gaussian_dropout, "inductor"), X)
        _, (scheduled,) = run_and_get_code(compiled(dropout, "inductor"), X, torch.tensor(0.5))
        _, (slow,) = run_and_get_code(compiled(keyed, "inductor"), X, torch.arange(len(X)))

    assert "dropkit_draw_v1(out=" in fast
    assert "dropkit_drop_v1(" in fast
    assert "dropkit_noise_v1(" in noisy
    assert "dropkit_draw_at_v1(" in scheduled
    assert "dropkit_drop_at_v1(" in scheduled
    assert "torch.ops.dropkit" not in fast + noisy + scheduled
    assert "torch.ops.dropkit.drop_v1" in slow


SESSION = """
    import json, sys, torch
    from torch._dynamo.utils import counters
    from dropkit.functional import dropout

    x = torch.ones(8, 6, requires_grad=True)
    torch.manual_seed(0)
    y = torch.compile(lambda x: dropout(dropout(x, 0.3), 0.3), fullgraph=True)(x)
    y.sum().backward()
    json.dump([counters["inductor"]["fxgraph_cache_hit"], y.tolist(), x.grad.tolist()], sys.stdout)
"""


@pytest.mark.slow
def test_what_was_compiled_serves_the_next_process(tmp_path):
    """Inductor caches the graphs, and cached code gives the same keys and masks."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TORCHINDUCTOR_AUTOGRAD_CACHE": "0"}
    command = [sys.executable, "-c", textwrap.dedent(SESSION)]

    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    (misses, *first), (hits, *second) = (json.loads(run.stdout) for run in runs)

    assert misses == 0
    assert hits >= 1
    assert first == second


@pytest.mark.parametrize("take_over", [False, True], ids=["functional", "install"])
def test_a_size_that_is_known_when_it_runs_breaks_no_graph(take_over):
    """Dropout works on a tensor selected by a boolean mask, whose size no trace knows."""
    torch._dynamo.reset()
    drop, taken = (F.dropout, dropkit.installed()) if take_over else (dropout, contextlib.nullcontext())
    chosen = torch.compile(lambda x: drop(x[x > 0], 0.5), backend="aot_eager", fullgraph=True)

    with taken, torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        assert chosen(torch.ones(64)).unique().tolist() == [0, 2]
