"""Parts that time single functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import batchwise as on_cpu
import torch
import torch.nn.functional as F
from drop_path import formula
from gpu.device import Device, counted, different, faster, name_of
from side_by_side import Row
from torch import Tensor, nn
from torch.func import vmap
from transforms import of_all

import dropkit
from dropkit import functional, kernels, random
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import inverted
from dropkit.nn import (
    BatchwiseConv,
    BatchwiseMLP,
    ConcreteDropout,
    DropBlock2d,
    Dropout,
    EmbeddingDropout,
    FeedForward,
    LayerDrop,
    PatchDropout,
    RecurrentDropout,
    ResidualDropPath,
    WeightDrop,
    Zoneout,
    submatrix,
)

P = 0.1
Function = Callable[[Tensor], Tensor]


def training(function: Callable[..., object], *inputs: Tensor, weights: Iterable[Tensor] = ()) -> Callable[[], object]:
    """A forward and a backward pass of a function, from the gradients of its outputs to those of inputs and weights."""
    outputs = function(*inputs)
    upstream = [torch.ones_like(output) for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
    needs_grad = [*(input for input in inputs if input.requires_grad), *weights]
    return lambda: torch.autograd.grad(function(*inputs), needs_grad, upstream)


def launches(device: Device) -> Iterator[Row]:
    """How many kernels does a call launch?

    They are counted by torch's profiler: first those of dropkit, then those of PyTorch.
    """
    x = device.normal(1024, requires_grad=True)
    w = device.normal(1024)
    fixed = x.detach()
    calls: dict[str, tuple[Callable[..., object], Callable[..., object], int]] = {
        "dropout": (lambda x: functional.dropout(x, P), lambda x: F.dropout(x, P), 1),
        "dropout_add": (lambda x: functional.dropout_add(x, x, P), lambda x: x + F.dropout(x, P), 1),
        "dropout_add_norm": (
            lambda x: functional.dropout_add_norm(x[None], x[None], w, w, P),
            lambda x: F.layer_norm(x + F.dropout(x, P), (1024,), w, w),
            1,
        ),
    }
    for name, (ours, theirs, wanted) in calls.items():
        with torch.no_grad():
            numbers = [device.launches(partial(function, fixed)) for function in (ours, theirs)]
        yield counted(f"{name}, forward", *numbers, f"<= {wanted}")
        numbers = [device.launches(training(function, x)) for function in (ours, theirs)]
        yield counted(f"{name}, forward + backward", *numbers, f"<= {numbers[1]}")


def host_time(device: Device) -> Iterator[Row]:
    """How long does the host take for a call?

    Wall-clock time of calls on 1,024 elements that are launched one after the other, without waiting for them.
    """
    x = device.normal(1024, requires_grad=True)
    fixed = x.detach()
    ours, theirs = partial(functional.dropout, p=P), partial(F.dropout, p=P)
    sides = {"functions": (ours, theirs), "modules": (Dropout(P), nn.Dropout(P))}
    for name, functions in sides.items():
        with torch.no_grad():
            times = device.host_seconds(*(partial(function, fixed) for function in functions))
        yield faster(f"forward, {name}", *times, ">= 1.0")
        if name == "functions":
            yield counted("the same in microseconds", times[0] * 1e6, f"{times[1] * 1e6:.4g}", "<= 8")
        times = device.host_seconds(*(training(function, x) for function in functions))
        yield faster(f"forward + backward, {name}", *times, ">= 1.0")
    step = training(theirs, x)
    (without,) = device.host_seconds(step)
    with dropkit.installed():
        (within,) = device.host_seconds(step)
    yield faster("forward + backward, PyTorch's function under install", within, without, ">= 1.0")


def copies(device: Device) -> Iterator[Row]:
    """How near is dropout to the speed of a copy?

    The kernel alone, on 2**28 elements with a key in memory, compared with `Tensor.copy_`.
    """
    for dtype in (torch.bfloat16, torch.float32):
        x = device.normal(device.size(2**28), dtype=dtype)
        y = torch.empty_like(x)
        mask = Mask(torch.tensor(7, device=device.type), inverted(P))
        times = device.seconds(partial(kernels.drop, y, x, mask), partial(y.copy_, x), busy=True)
        yield faster(f"{name_of(dtype)}, 2**28 elements", *times, ">= 0.92")
        bandwidth = 2 * x.nbytes / times[0] / 1e12
        yield counted("the same in TB/s, read and written", bandwidth, f"{2 * x.nbytes / times[1] / 1e12:.4g}", "")


def sizes(device: Device) -> Iterator[Row]:
    """How much faster are forward and backward than PyTorch's, by size?

    `dropkit.functional.dropout` is compared with `torch.nn.functional.dropout`. The time of few elements is the host's;
    up to 2**22 elements a large cache holds all of them.
    """
    for dtype, target in ((torch.bfloat16, 1.15), (torch.float16, 1.15), (torch.float32, 1.05)):
        for power in (8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28):
            x = device.normal(device.size(2**power), dtype=dtype, requires_grad=True)
            functions = partial(functional.dropout, p=P), partial(F.dropout, p=P)
            times = device.seconds(*(training(function, x) for function in functions), busy=power > 22)
            goal = "" if power < 10 else f">= {target if power == 28 else 1.0:g}"
            yield faster(f"{name_of(dtype)}, 2**{power} elements", *times, goal)
            del x


def noise(device: Device) -> Iterator[Row]:
    """How much faster is noise than the formulas of Keras' layers?

    2**26 elements.
    """
    deviation = (P / (1 - P)) ** 0.5
    formulas: dict[str, tuple[Function, Function]] = {
        "GaussianDropout": (
            lambda x: functional.gaussian_dropout(x, P),
            lambda x: x * (1 + deviation * torch.randn_like(x)),
        ),
        "GaussianNoise": (lambda x: functional.gaussian_noise(x, P), lambda x: x + P * torch.randn_like(x)),
    }
    for dtype in (torch.bfloat16, torch.float32):
        x = device.normal(device.size(2**26), dtype=dtype, requires_grad=True)
        fixed = x.detach()
        for name, functions in formulas.items():
            times = device.seconds(*(partial(function, fixed) for function in functions), busy=True)
            yield faster(f"{name}, forward, {name_of(dtype)}", *times, ">= 1.0")
            times = device.seconds(*(training(function, x) for function in functions), busy=True)
            yield faster(f"{name}, forward + backward, {name_of(dtype)}", *times, ">= 1.0")


def fused(device: Device) -> Iterator[Row]:
    """How much faster is a fused function than separate calls, eager and compiled?

    bfloat16, 32,768 rows of 4,096 columns. The separate calls are PyTorch's.
    """
    rows, columns = device.size(2**15), device.size(4096)
    x, r = (device.normal(rows, columns, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    w, b = (device.normal(columns, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))

    def normed(x: Tensor, r: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        s = r + F.dropout(x, P)
        return F.layer_norm(s, (columns,), w, b), s

    ours, sides = partial(functional.dropout_add_norm, p=P), (normed, device.compile(normed))
    times = device.seconds(*(training(function, x, r, w, b) for function in (ours, *sides)), busy=True)
    yield faster("dropout_add_norm, forward + backward, eager", times[0], times[1], ">= 3.0")
    yield faster("dropout_add_norm, forward + backward, compiled", times[0], times[2], ">= 1.0")
    with torch.no_grad():
        times = device.seconds(*(partial(function, x, r, w, b) for function in (ours, *sides)), busy=True)
    yield faster("dropout_add_norm, forward, eager", times[0], times[1], ">= 3.0")
    yield faster("dropout_add_norm, forward, compiled", times[0], times[2], ">= 1.0")
    others: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
        "dropout_add": (lambda x, r, b: functional.dropout_add(x, r, P), lambda x, r, b: r + F.dropout(x, P)),
        "bias_act_dropout_add": (
            lambda x, r, b: functional.bias_act_dropout_add(x, b, r, P),
            lambda x, r, b: r + F.dropout(F.gelu(x + b), P),
        ),
    }
    for name, functions in others.items():
        inputs = (x, r, b) if name != "dropout_add" else (x, r, b.detach())
        times = device.seconds(*(training(function, *inputs) for function in functions), busy=True)
        yield faster(f"{name}, forward + backward, eager", *times, ">= 1.0")


def drop_path(device: Device) -> Iterator[Row]:
    """Is dropping whole samples faster than by the formula, and a branch on the kept samples than on all?

    The formula is that of other libraries: a Bernoulli number for each sample, and a product. The residual block is
    that of a vision transformer (feed-forward, 768-3072-768, 128 samples of 196 tokens, bfloat16); it is compared with
    the formula, and with the block without dropout.
    """
    x = device.normal(device.size(128), device.size(196), device.size(768), dtype=torch.bfloat16, requires_grad=True)
    for what, wrap in (("forward", partial), ("forward + backward", training)):
        tensor = x.detach() if what == "forward" else x
        functions = partial(functional.drop_path, p=0.4), partial(formula, p=0.4)
        times = device.seconds(*(wrap(function, tensor) for function in functions))
        yield faster(f"{what}, {x.numel()} elements", *times, ">= 1.0")
    width = x.shape[-1]
    branch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    branch.to(device.type, torch.bfloat16)
    step = partial(training, weights=list(branch.parameters()))
    for p, target, goal in ((0.4, ">= 1.3", ">= 1.2"), (0.1, ">= 1.0", "")):
        block = ResidualDropPath(branch, p)
        blocks = block, lambda x, p=p: x + formula(branch(x), p), lambda x: x + branch(x)
        ours, theirs, without = device.seconds(*(step(block, x) for block in blocks))
        yield faster(f"residual block, training step, p={p}, formula", ours, theirs, target)
        yield faster(f"residual block, training step, p={p}, no dropout", ours, without, goal)


def batchwise(device: Device) -> Iterator[Row]:
    """How much faster does a network train if dropped units are not computed?

    A training step of the same layers with PyTorch's dropout, and without any, is compared with that of `FeedForward`,
    `BatchwiseMLP` and `BatchwiseConv` at p = 0.5.
    """
    size, times = device.size, device.times
    cases: dict[str, tuple[nn.Module, Tensor, torch.dtype]] = {
        "feed-forward block 4096-16384-4096, 8,192 tokens, bfloat16": (
            FeedForward(size(4096), size(16384), 0.5),
            torch.randn(size(8192), size(4096)),
            torch.bfloat16,
        ),
        "784-2048-2048-10, batch 8,192, float32": (
            BatchwiseMLP((size(784), size(2048), size(2048), 10), 0.5),
            torch.randn(size(8192), size(784)),
            torch.float32,
        ),
        "3x3 convolutions 64-256-256-10, 128 images of 32x32, bfloat16": (
            BatchwiseConv((size(64), size(256), size(256), 10), 3, 0.5, padding=1),
            torch.randn(size(128), size(64), 4 * times(8), 4 * times(8)),
            torch.bfloat16,
        ),
    }
    for case, (model, x, dtype) in cases.items():
        x = x.to(device.type, dtype)
        model.to(device.type, dtype)
        plain, without = (on_cpu.Plain(model, p, x.dim() == 4) for p in (0.5, None))
        ours, theirs, none = device.seconds(*(on_cpu.step(module, x, None) for module in (model, plain, without)))
        yield faster(f"{case}, PyTorch's dropout", ours, theirs, ">= 1.0")
        yield faster(f"{case}, no dropout", ours, none, ">= 1.0")


def batchwise_limits(device: Device) -> Iterator[Row]:
    """From which sizes on is it faster not to compute dropped units?

    A training step of a feed-forward block, 1024-4096-1024, at p = 0.5, on submatrices, is compared with one on whole
    matrices. dropkit leaves units out from 4,096 tokens on.
    """
    limits = submatrix.LEAST_ROWS_ON_GPU, submatrix.LEAST_MULTIPLICATIONS_ON_GPU

    def on(limit: int, step: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            submatrix.LEAST_ROWS_ON_GPU = submatrix.LEAST_MULTIPLICATIONS_ON_GPU = limit
            step()

        return run

    try:
        for dtype in (torch.bfloat16, torch.float32):
            block = FeedForward(device.size(1024), device.size(4096), 0.5).to(device.type, dtype)
            for tokens, target in ((512, ""), (1024, ""), (2048, ""), (4096, ">= 1.0"), (16384, ">= 1.2")):
                x = device.normal(device.size(tokens), device.size(1024), dtype=dtype, requires_grad=True)
                step = training(block, x, weights=block.parameters())
                times = device.seconds(on(0, step), on(2**62, step))
                yield faster(f"{name_of(dtype)}, {tokens:,} tokens", *times, target)
    finally:
        submatrix.LEAST_ROWS_ON_GPU, submatrix.LEAST_MULTIPLICATIONS_ON_GPU = limits


def waits(device: Device) -> Iterator[Row]:
    """How often does a training step of a layer wait for the GPU?

    torch counts the operations that do.
    """
    size = device.size
    x, words = device.normal(size(64), size(256), size(512)), torch.ones(size(64), size(256), dtype=torch.int64)
    image = x.view(*x.shape[:2], -1, 4)
    width = x.shape[-1]
    layers: dict[str, tuple[Callable[..., object], Tensor]] = {
        "ResidualDropPath": (ResidualDropPath(nn.Linear(width, width), 0.4), x),
        "FeedForward": (FeedForward(width, size(16384), 0.5), x),
        "BatchwiseMLP": (BatchwiseMLP((width, size(8192), size(8192), 8), 0.5), x),
        "BatchwiseConv": (BatchwiseConv((x.shape[1], size(1024), 8), 3, 0.5, padding=1), image),
        "DropBlock2d": (DropBlock2d(0.1, 3), image),
        "PatchDropout": (PatchDropout(0.5), x),
        "ConcreteDropout": (ConcreteDropout(nn.Linear(width, width)), x),
        "RecurrentDropout": (RecurrentDropout(nn.GRU(width, width), 0.5, output_p=0.5), x),
        "EmbeddingDropout": (EmbeddingDropout(nn.Embedding(size(1024), width), 0.1), words.to(device.type)),
        "WeightDrop": (WeightDrop(nn.Linear(width, width)), x),
        "Zoneout": (partial(Zoneout(0.5), x), x),
        "LayerDrop": (LayerDrop([nn.Linear(width, width) for _ in range(4)], 0.5), x),
    }
    for name, (layer, input) in layers.items():
        if isinstance(layer, nn.Module):
            layer.to(device.type)
        input = input.requires_grad_() if input.is_floating_point() else input

        def step(layer: Callable[..., Any] = layer, input: Tensor = input) -> None:
            output = layer(input)
            (output[0] if isinstance(output, tuple) else output).sum().backward()

        yield counted(name, device.waits(step), "", "<= 0")


def slices(device: Device) -> Iterator[Row]:
    """What do masks of their own for each slice cost under `torch.vmap`?

    `vmap(randomness="different")` of `dropkit.functional.dropout` is compared with that of PyTorch's, and with a loop
    over the slices; first the masks are compared with those of the CPU.
    """
    samples, features = device.size(1024), device.size(4096)
    x, keys = torch.randn(samples, features), random.split(7, samples)
    keyed = vmap(lambda x, key: functional.dropout(x, P, key=key))
    there = x.to(device.type)
    yield different("with keys: values that differ", iter([(keyed(x, keys), keyed(there, keys.to(device.type)))]))
    ours, theirs = (of_all(partial(function, p=P)) for function in (functional.dropout, F.dropout))
    yield faster("forward", *device.seconds(partial(ours, there), partial(theirs, there)), ">= 1.0")
    needs_grad = there.clone().requires_grad_()
    times = device.seconds(training(ours, needs_grad), training(theirs, needs_grad))
    yield faster("forward + backward", *times, ">= 1.0")

    def loop() -> Tensor:
        return torch.stack([functional.dropout(row, P) for row in there])

    yield faster("forward, a loop", *device.seconds(partial(ours, there), loop, rounds=3, calls=1), ">= 1.0")
