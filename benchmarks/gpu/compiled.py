"""Parts that compile, and a whole model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from gpu.device import Device, counted, different, faster, name_of, smaller
from gpu.speed import P, training
from side_by_side import Row
from torch import Tensor, nn

import dropkit
from dropkit import functional

Function = Callable[..., Tensor]


def chain(dropout: Function, activation: Function) -> Function:
    return lambda x, residual: dropout(activation(x), P) + residual


def fusion(device: Device) -> Iterator[Row]:
    """Does compiled code fuse dropout with its neighbours?

    gelu, dropout and an addition of 2**26 bfloat16 elements, forward and backward, compiled with dropkit's and with
    PyTorch's dropout: kernels and time. Then relu, dropout and an addition, whose bits are those of eager calls, and
    calls by graphs that the compiler captures.
    """
    inputs = [device.normal(device.size(2**26), dtype=torch.bfloat16, requires_grad=True) for _ in range(2)]
    steps = [training(device.compile(chain(dropout, F.gelu)), *inputs) for dropout in (functional.dropout, F.dropout)]
    ours, theirs = (device.launches(step) for step in steps)
    yield counted("gelu, dropout, add, forward + backward: kernels", ours, theirs, f"<= {theirs}")
    yield faster("the same: time", *device.seconds(*steps, busy=True), ">= 1.0")
    for dtype in (torch.float32, torch.bfloat16):
        yield from bits(device, dtype)
    yield from captured(device)


def bits(device: Device, dtype: torch.dtype) -> Iterator[Row]:
    """Compare outputs and gradients of compiled and eager calls, from the same seed. relu has the same bits in both."""
    x, residual = (device.normal(device.size(999), device.size(1001), dtype=dtype) for _ in range(2))
    leaf = x.requires_grad_()
    eager = chain(functional.dropout, F.relu)
    results = []
    for function in (eager, device.compile(eager)):
        torch.manual_seed(5)
        output = function(leaf, residual)
        results.append((output.detach(), *torch.autograd.grad(output, leaf, residual)))
    pairs = iter(zip(*results, strict=True))
    yield different(f"relu, dropout, add, {name_of(dtype)}: values that differ from eager calls", pairs)


def captured(device: Device) -> Iterator[Row]:
    """Compare replays of the graphs that `torch.compile(mode="reduce-overhead")` captures with eager calls."""
    function = chain(functional.dropout, F.relu)
    compiled = device.compile(function, mode="reduce-overhead")
    x, count = device.normal(device.size(2**16)).abs() + 1, device.times(100)
    with torch.no_grad():
        for _ in range(device.times(4)):  # after which the graph is captured
            compiled(x, x)
        torch.manual_seed(9)
        replayed = [compiled(x, x).clone() for _ in range(count)]
        torch.manual_seed(9)
        eager = [function(x, x) for _ in range(count)]
    different_masks = len({tuple(y[:256].tolist()) for y in replayed})
    yield counted("reduce-overhead: different masks", different_masks, count, f">= {count}")
    yield different("reduce-overhead: values that differ from eager calls", iter(zip(replayed, eager, strict=True)))


def transformer(device: Device) -> Iterator[Row]:
    """What does a transformer gain from `dropkit.install()`, eager and compiled?

    Forward and backward pass of 12 layers of `nn.TransformerEncoderLayer`, d = 1,024, 16 heads, 8 x 512 tokens,
    bfloat16, p = 0.1: time and peak memory with and without `install`, one after the other, since installing makes
    torch compile anew. Each layer is compiled by itself; all of them share the code.
    """
    width, depth = device.size(1024), device.times(12)
    layer = nn.TransformerEncoderLayer(width, device.size(16), 4 * width, dropout=P, batch_first=True)
    model = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False).to(device.type, torch.bfloat16)
    # It needs a gradient so that the first layer is compiled like the others.
    x = device.normal(8, device.size(512), width, dtype=torch.bfloat16, requires_grad=True)
    for name in ("eager", "compiled"):
        if name == "compiled":
            model.layers = nn.ModuleList(map(device.compile, model.layers))

        def step() -> None:
            model.zero_grad(set_to_none=True)
            model(x).float().square().mean().backward()

        theirs, ours = (measured(device, step, within) for within in (nullcontext, dropkit.installed))
        yield faster(f"{name}, time of a step", ours[0], theirs[0], ">= 1.0")
        yield smaller(f"{name}, peak memory of a step", ours[1], theirs[1], ">= 1.0")


def measured(device: Device, step: Callable[[], None], within: Callable[[], object]) -> tuple[float, int]:
    """Return time and peak memory of a training step within a context."""
    with within():
        (seconds,) = device.seconds(step, rounds=9, calls=5)
        return seconds, device.peak_bytes(step)
