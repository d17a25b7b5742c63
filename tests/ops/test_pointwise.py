"""Dropout in the kernels that inductor writes for GPUs, which Triton's interpreter runs here on CPU tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.compare import agree, compiled, observe
from helpers.kernel_grid import INDICES, LAYOUTS, by_reference, same_bits
from torch import Tensor

import dropkit
from dropkit.functional import (
    alpha_dropout,
    drop_path,
    dropout,
    dropout2d,
    feature_alpha_dropout,
    gaussian_dropout,
    gaussian_noise,
)
from dropkit.kernels import gpu
from dropkit.kernels.mask import Mask
from dropkit.kernels.numbers import NORMAL, UNIFORM
from dropkit.kernels.params import DropoutParams, NoiseParams, Params, alpha, inverted
from dropkit.ops import custom_op, pointwise

pytestmark = [
    pytest.mark.skipif(gpu.missing is not None, reason=str(gpu.missing)),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, for which inductor compiles"),
    pytest.mark.skipif(not torch.__version__.startswith("2.13"), reason="the backend replaces parts of torch 2.13"),
    # NumPy warns of integer overflow, which Philox relies on, and of 1 / (1 - p) at p = 1, which is not used.
    pytest.mark.filterwarnings("ignore:(overflow|divide by zero|invalid value) encountered"),
]

Case = tuple[str, str, torch.dtype, Params]
EFFECTS = (inverted(0.3), alpha(0.3), NoiseParams(NORMAL, 0.7, 2.0), NoiseParams(UNIFORM, 0.7, 2.0))
# Layout, mask elements, dtype and effect. Other masks that elements share differ from "channel" by a stride alone.
CASES: list[Case] = [
    *(
        ("ragged", indices, torch.float32, EFFECTS[0])
        for indices in INDICES
        if indices not in ("sample", "last dimension", "all but the last")
    ),
    *((layout, "element", torch.float32, EFFECTS[0]) for layout in ("scalar", "transposed", "expanded")),
    *(("short", "element", torch.float64, effect) for effect in EFFECTS[1:]),
    *(("short", "element", torch.float16, effect) for effect in EFFECTS[1:3]),
    ("channels_last", "channel", torch.float32, EFFECTS[3]),
    ("short", "element", torch.float32, DropoutParams(2**32, 0.0, 0.0, 0.0)),
]


def call_of(cases: list[Case]) -> tuple[Callable[..., list[Tensor]], list[Tensor], list[Tensor]]:
    """A function of a key and inputs, the inputs, and what the reference makes of them."""
    inputs = [LAYOUTS[layout]().to(dtype) for layout, _, dtype, _ in cases]
    inputs = [input[..., :40] if input.dim() else input for input in inputs]
    masks = [Mask(-5, effect, *INDICES[name](x)) for x, (_, name, _, effect) in zip(inputs, cases, strict=True)]

    def drop_all(key: Tensor, *inputs: Tensor) -> list[Tensor]:
        return [custom_op.drop(x, mask._replace(key=key)) for x, mask in zip(inputs, masks, strict=True)]

    return drop_all, inputs, list(map(by_reference, inputs, masks))


def test_kernels_for_gpus_have_the_bits_of_the_reference():
    """Every kind of mask, layout, dtype and effect is computed in the kernel, and none by calling an operator."""
    from helpers import inductor_for_gpus

    inductor_for_gpus.written.clear()
    function, inputs, expected = call_of(CASES)

    outputs = compiled(function, inductor_for_gpus.backend)(torch.tensor(-5), *inputs)

    assert inductor_for_gpus.operators(inductor_for_gpus.written[-1]) == []
    for case, output, bits in zip(CASES, outputs, expected, strict=True):
        assert same_bits(output, bits), case


def test_the_operations_mean_the_same_in_cpp(monkeypatch):
    """Inductor's kernels for CPUs, where dropkit does not ask for them, have the same bits."""
    from torch._inductor.utils import run_and_get_code

    monkeypatch.setattr(pointwise, "DEVICES", {"cpu"})
    function, inputs, expected = call_of([("ragged", "beyond 2**34", torch.float16, inverted(0.3))])

    with torch._inductor.config.patch(fx_graph_cache=False):  # it does not know of the change
        outputs, (code,) = run_and_get_code(compiled(function, "inductor"), torch.tensor(-5), *inputs)

    assert "dropkit_drop_v1" not in code
    assert all(map(same_bits, outputs, expected))


X = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
MAPS = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
PAIRS = torch.tensor([[2**63 + 9, 2**64 - 3]] * 6, dtype=torch.uint64)
# A function with its inputs, and whether mask elements are shared, which takes a small kernel more.
PROGRAMS: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...], bool]] = {
    "dropout": (lambda x, y: dropout(x.relu(), 0.3) + y, (X, X), False),
    "float16": (lambda x: dropout(x, 0.3) + x, (X.detach().half().requires_grad_(),), False),
    "two": (lambda x: dropout(dropout(x, 0.3).relu(), 0.4), (X,), False),
    "noise": (lambda x: gaussian_dropout(x.relu(), 0.3) + x, (X,), False),
    "shared": (lambda x: dropout2d(x.relu(), 0.3) + x, (MAPS,), True),
    "shared constants": (lambda x: feature_alpha_dropout(x.relu(), 0.3, True) + x, (MAPS,), True),
    "keys": (lambda x, k: torch.vmap(lambda x, k: dropout(x, 0.3, key=k) + x)(x, k), (X, torch.arange(6)), False),
    "pairs": (lambda x, k: torch.vmap(lambda x, k: dropout(x, 0.3, key=k) + x)(x, k), (X, PAIRS), False),
    "rate": (lambda x, p: dropout(x.relu(), p) + x, (X, torch.tensor(0.3)), False),
    "shared rate": (lambda x, p: feature_alpha_dropout(x.relu(), p, True) + x, (MAPS, torch.tensor(0.3)), True),
    "int key": (lambda x, k: dropout(x, 0.3, key=k) + x, (X, 2**50 + 7), False),
}


@pytest.mark.parametrize(
    ("name", "dynamic"),
    [*((name, False) for name in PROGRAMS), *((name, True) for name in ("dropout", "shared", "keys", "int key"))],
)
def test_dropout_fuses_with_its_neighbours(name, dynamic):
    """One kernel computes the output and one the gradient, with the bits of eager mode."""
    from helpers import inductor_for_gpus

    function, inputs, is_shared = PROGRAMS[name]
    inductor_for_gpus.written.clear()

    seen = observe(compiled(function, inductor_for_gpus.backend, dynamic), *inputs)

    assert agree(seen, observe(function, *inputs))
    forward, backward = inductor_for_gpus.written
    assert set(inductor_for_gpus.operators(forward)) <= {"draw_v1"}
    assert inductor_for_gpus.operators(backward) == []
    kernels = 1 + is_shared
    assert len(inductor_for_gpus.kernels(forward)) <= kernels + (name == "int key")
    assert len(inductor_for_gpus.kernels(backward)) == kernels


RATED: dict[str, Callable[..., Tensor]] = {
    "inverted": dropout,
    "unscaled": partial(drop_path, scale_by_keep=False),
    "alpha": partial(alpha_dropout, training=True),
    "gaussian": gaussian_dropout,
    "additive_normal": gaussian_noise,
}


@pytest.mark.parametrize("name", RATED)
def test_a_rate_in_memory_is_read_by_the_kernel(name):
    """The bits are those of the rate as a number; out of range there is nothing but NaN, and no error."""
    from helpers import inductor_for_gpus

    inductor_for_gpus.written.clear()
    x, upstream = X.detach().requires_grad_(), torch.randn(X.shape)
    at_rate = compiled(lambda x, p, key: RATED[name](x, p, key=key), inductor_for_gpus.backend)

    for p in (0.3, 0.0, 2.0**-33, 3 * 2.0**-33, 1 - 2.0**-33, 1.0)[: 5 if name == "gaussian" else None]:
        output = at_rate(x, torch.tensor(p, dtype=torch.float64), torch.tensor(3))
        expected = RATED[name](x, p, key=3)
        assert same_bits(output, expected), p
        assert same_bits(*(torch.autograd.grad(y, x, upstream)[0] for y in (output, expected))), p
    for p in (-0.1, math.inf, math.nan):
        assert at_rate(x, torch.tensor(p, dtype=torch.float64), torch.tensor(3)).isnan().all(), p
    assert not any(map(inductor_for_gpus.operators, inductor_for_gpus.written))


def test_installed_dropout_fuses():
    """Under `install()`, `F.dropout` is part of the kernel, too."""
    from helpers import inductor_for_gpus

    def function(x: Tensor) -> Tensor:
        return F.dropout(x.relu(), 0.3) + x

    inductor_for_gpus.written.clear()
    with dropkit.installed():
        seen = observe(compiled(function, inductor_for_gpus.backend), X)
        expected = observe(function, X)

    assert agree(seen, expected)
    assert inductor_for_gpus.operators(inductor_for_gpus.written[0]) == ["draw_v1"]


def test_an_offset_that_changes_calls_the_operator():
    """A symbol may not fit the 32 bits in which inductor computes indices."""
    from helpers import inductor_for_gpus

    def from_offset(x: Tensor, key: Tensor, offset: int) -> Tensor:
        return torch.ops.dropkit.drop_v1(x, key, 2**31, 2.0, 0.0, 0.0, (50, 1), offset)

    inductor_for_gpus.written.clear()
    inputs = X, torch.tensor(3), 2**40

    seen = observe(compiled(from_offset, inductor_for_gpus.backend, dynamic=True), *inputs)

    assert agree(seen, observe(from_offset, *inputs))
    assert inductor_for_gpus.operators(inductor_for_gpus.written[0]) == ["drop_v1"]
