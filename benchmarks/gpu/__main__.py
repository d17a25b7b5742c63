"""Check and time dropout on a GPU, against a copy, PyTorch's dropout and `torch.compile`; print a table in Markdown.

    python benchmarks/gpu

This needs a GPU, a build of torch for it, and dropkit. It takes a few minutes and writes no files.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dropkit
from dropkit import functional, kernels
from dropkit.kernels.mask import Mask
from dropkit.kernels.params import inverted

P = 0.1
ROUNDS = 15
Row = tuple[str, str, str, str, str]


def microseconds(*calls: Callable[[], Any], large: bool = False) -> list[float]:
    """Return the median time of each call; the calls take turns, in rounds of ten.

    Args:
        calls: what is timed.
        large: keep the GPU busy while the first calls are launched, so that launching is not measured. With small sizes
            launching is what matters.
    """
    for call in calls:
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    rounds: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, times in zip(calls, rounds, strict=True):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            if large:
                torch.cuda._sleep(2_000_000)
            begin.record()
            for _ in range(10):
                call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 100)
    return [statistics.median(times) for times in rounds]


def row(case: str, ours: float, theirs: float, target: float | None, unit: str = "us") -> Row:
    """Compare two times: how many times faster dropkit is, and whether the target is met."""
    ratio = theirs / ours
    met = "" if target is None else f">= {target:g} {'met' if ratio >= target else 'NOT MET'}"
    return case, f"{ours:.4g} {unit}", f"{theirs:.4g} {unit}", f"{ratio:.3f}", met


def count_row(case: str, count: int, total: int, wanted: int) -> Row:
    """Report a count among `total`, and whether it is as wanted."""
    return case, f"{count}", f"of {total}", "", f"{wanted} {'met' if count == wanted else 'NOT MET'}"


def masks() -> Iterator[Row]:
    """Compare the masks, and the numbers of noise, of the GPU with those of the CPU."""
    layouts = {
        "contiguous": lambda: torch.ones(1000, 4099),
        "channels_last": lambda: torch.ones(8, 32, 17, 19).to(memory_format=torch.channels_last),
        "transposed": lambda: torch.ones(300, 700).t(),
    }
    for dtype in sorted(kernels.FLOATS, key=str):
        wrong = compared = 0
        for make in layouts.values():
            x = make().to(dtype)
            for layer in (functional.dropout, functional.dropout1d, functional.alpha_dropout):
                here = layer(x if layer is not functional.dropout1d else x.reshape(x.shape[0], 1, -1), 0.3, key=11)
                there = layer(
                    x.cuda() if layer is not functional.dropout1d else x.cuda().reshape(x.shape[0], 1, -1), 0.3, key=11
                )
                wrong += int((here != there.cpu()).sum())
                compared += x.numel()
        yield count_row(f"values that differ from the CPU's, {dtype}", wrong, compared, 0)
        wrong = compared = 0
        for make in layouts.values():
            x = make().to(dtype)
            for layer in (functional.gaussian_dropout, functional.gaussian_noise):
                wrong += int((layer(x, 0.3, key=11) != layer(x.cuda(), 0.3, key=11).cpu()).sum())
                compared += x.numel()
        yield count_row(f"values of noise that differ from the CPU's, {dtype}", wrong, compared, 0)
    far = torch.empty(2**20, device="cuda")
    near = torch.empty(2**20)
    for base in (2**32 - 64, 2**40):
        kernels.drop(far.fill_(1), far, Mask(5, inverted(0.3), (1,), base))
        kernels.drop(near.fill_(1), near, Mask(5, inverted(0.3), (1,), base))
        wrong = int((far.cpu() != near).sum())
        yield count_row(f"the same from mask element {base} on", wrong, 2**20, 0)


def values() -> Iterator[Row]:
    """Compare results with the CPU's: unaligned and in-place calls, NaN and infinities bit for bit; fused functions."""
    for dtype in sorted(kernels.FLOATS, key=str):
        x = torch.randn(70_001).to(dtype)
        x[::97], x[5::89] = torch.nan, torch.inf
        wrong = compared = 0
        cases: dict[str, Callable[[Tensor], Tensor]] = {
            "unaligned": lambda x: functional.dropout(x[1:], 0.3, key=3),
            "one element": lambda x: functional.dropout(x[5:6], 0.3, key=3),
            "fifteen elements": lambda x: functional.dropout(x[1:16], 0.3, key=3),
            "sliced": lambda x: functional.dropout(x[:70_000].view(100, 700)[:, 1:650], 0.3, key=3),
            "in place": lambda x: functional.dropout(x.clone(), 0.3, inplace=True, key=3),
            "added": lambda x: functional.dropout_add(x, x.flip(0), 0.3, key=3),
        }
        for case in cases.values():
            here, there = case(x), case(x.cuda()).cpu()
            same = (here == there) | (here.isnan() & there.isnan())
            wrong, compared = wrong + int((~same).sum()), compared + here.numel()
        yield count_row(f"layouts, {dtype}", wrong, compared, 0)
    for dtype, allowed in ((torch.float32, 1e-4), (torch.bfloat16, 0.03), (torch.float16, 0.004)):
        worst: dict[str, float] = {}
        for columns in (5, 12, 64, 1000, 4096, 16384):
            for name, call in FUSED.items():
                expected, results = (output_and_gradients(call, columns, dtype, device) for device in ("cpu", "cuda"))
                parts = ("result", *["gradients"] * 4)
                for part, value, result in zip(parts, expected, results, strict=False):
                    error = (value.double() - result.cpu().double()).abs().max()
                    error = error / value.double().abs().max().clamp(min=1e-9)
                    # NaN counts as an infinite error.
                    error = float(error.nan_to_num(torch.inf))
                    worst[f"{name}, {part}"] = max(worst.get(f"{name}, {part}", 0.0), error)
        for name, error in worst.items():
            met = "met" if error <= allowed else "NOT MET"
            yield f"{name}, {dtype}: error relative to the largest", f"{error:.2g}", "", "", f"<= {allowed:g} {met}"


FUSED: dict[str, Callable[..., Any]] = {
    "dropout_add": lambda x, r, w, b: functional.dropout_add(x, r, 0.3, key=5),
    "dropout_add_norm, layer": lambda x, r, w, b: functional.dropout_add_norm(x, r, w, b, 0.3, key=5)[0],
    "dropout_add_norm, rms": lambda x, r, w, b: functional.dropout_add_norm(
        x, r, w, None, 0.3, norm="rms", row_scale=torch.linspace(0, 2, len(x), dtype=x.dtype, device=x.device), key=5
    )[0],
    "bias_act_dropout_add": lambda x, r, w, b: functional.bias_act_dropout_add(x, b, r, 0.3, key=5),
}


def output_and_gradients(call: Callable[..., Tensor], columns: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Return the output, and the gradient of each input that has one."""
    generator = torch.Generator().manual_seed(columns)
    shapes = ((37, columns), (37, columns), (columns,), (columns,), (37, columns))
    tensors = [torch.randn(shape, generator=generator).to(dtype).to(device) for shape in shapes]
    *inputs, upstream = tensors
    for input in inputs:
        input.requires_grad_()
    output = call(*inputs)
    grads = torch.autograd.grad(output, inputs, upstream, allow_unused=True)
    return [output.detach(), *(grad for grad in grads if grad is not None)]


def copies() -> Iterator[Row]:
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(2**28, device="cuda").to(dtype)
        y = torch.empty_like(x)
        key = torch.tensor(7, device="cuda")
        drop, copy = partial(kernels.drop, y, x, Mask(key, inverted(P))), partial(y.copy_, x)
        yield row(f"forward, {dtype}, 2**28, compared with a copy", *microseconds(drop, copy, large=True), 0.92)


def both_ways() -> Iterator[Row]:
    for dtype, target in ((torch.bfloat16, 1.15), (torch.float32, 1.05)):
        for power in (10, 14, 18, 20, 22, 24, 26, 28):
            x = torch.randn(2**power, device="cuda", dtype=torch.float32).to(dtype).requires_grad_()
            grad = torch.ones_like(x)

            def run(dropout: Callable[..., Tensor], x: Tensor = x, grad: Tensor = grad) -> None:
                torch.autograd.grad(dropout(x, P), x, grad)

            ours, theirs = microseconds(
                lambda run=run: run(functional.dropout), lambda run=run: run(F.dropout), large=power > 22
            )
            cached = " (in cache)" if power <= 22 else ""
            yield row(f"forward + backward, {dtype}, 2**{power}{cached}", ours, theirs, target if power == 28 else 1.0)
            del x, grad


def noise() -> Iterator[Row]:
    """Compare noise with the formulas of Keras' layers."""
    std = (P / (1 - P)) ** 0.5
    formulas: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
        "GaussianDropout": (lambda x: functional.gaussian_dropout(x, P), lambda x: x * (1 + std * torch.randn_like(x))),
        "GaussianNoise": (lambda x: functional.gaussian_noise(x, P), lambda x: x + P * torch.randn_like(x)),
    }
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(2**26, device="cuda").to(dtype)
        leaf, grad = x.clone().requires_grad_(), torch.ones_like(x)

        def run(call: Callable[[Tensor], Tensor], leaf: Tensor = leaf, grad: Tensor = grad) -> None:
            torch.autograd.grad(call(leaf), leaf, grad)

        for name, (ours, theirs) in formulas.items():
            times = microseconds(partial(ours, x), partial(theirs, x), large=True)
            yield row(f"{name}, forward, {dtype}, 2**26", *times, 1.0)
            times = microseconds(partial(run, ours), partial(run, theirs), large=True)
            yield row(f"{name}, forward + backward, {dtype}, 2**26", *times, 1.0)


def fused() -> Iterator[Row]:
    rows, columns = 2**15, 4096
    x, r = (torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(2))
    w, b = (torch.randn(columns, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(2))
    inputs, upstream = (x, r, w, b), (torch.randn_like(x), torch.randn_like(x))

    def separate(x: Tensor, r: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        s = r + F.dropout(x, P)
        return F.layer_norm(s, (columns,), w, b), s

    compiled = torch.compile(separate)

    def run(call: Callable[..., Any]) -> None:
        torch.autograd.grad(call(*inputs), inputs, upstream)

    ours, eager, fast = microseconds(
        lambda: run(lambda *tensors: functional.dropout_add_norm(*tensors, P)),
        lambda: run(separate),
        lambda: run(compiled),
    )
    yield row("dropout_add_norm, forward + backward, compared with eager PyTorch", ours, eager, 3.0)
    yield row("the same compared with torch.compile", ours, fast, 1.0)
    with torch.no_grad():
        ours, eager, fast = microseconds(
            lambda: functional.dropout_add_norm(*inputs, P), lambda: separate(*inputs), lambda: compiled(*inputs)
        )
    yield row("dropout_add_norm, forward, compared with eager PyTorch", ours, eager, 3.0)
    yield row("the same compared with torch.compile", ours, fast, 1.0)

    def run_sum(call: Callable[[Tensor, Tensor], Tensor]) -> None:
        torch.autograd.grad(call(x, r), (x, r), upstream[0])

    ours, eager = microseconds(
        lambda: run_sum(lambda x, r: functional.dropout_add(x, r, P)), lambda: run_sum(lambda x, r: r + F.dropout(x, P))
    )
    yield row("dropout_add, forward + backward, compared with eager PyTorch", ours, eager, None)


def memory() -> Iterator[Row]:
    layer = nn.TransformerEncoderLayer(1024, 16, 4096, dropout=P, batch_first=True)
    model = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False).cuda().bfloat16().train()
    x = torch.randn(8, 512, 1024, device="cuda", dtype=torch.bfloat16)

    def peak() -> float:
        model.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        model(x).float().square().mean().backward()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 1e6

    peak()
    theirs = peak()
    with dropkit.installed():
        peak()
        ours = peak()
    yield (
        "peak of a step, 12 layers, bfloat16, p = 0.1",
        f"{ours:.0f} MB",
        f"{theirs:.0f} MB",
        f"{theirs / ours:.3f}",
        ("lower " + ("met" if ours < theirs else "NOT MET")),
    )


def graphs() -> Iterator[Row]:
    x = torch.ones(2**16, device="cuda")
    y = torch.empty_like(x)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        functional.dropout(x, 0.5)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y.copy_(functional.dropout(x, 0.5))
    torch.cuda.manual_seed(3)
    replayed: list[Tensor] = []
    for _ in range(100):
        graph.replay()
        replayed.append(y.clone())
    torch.cuda.manual_seed(3)
    eager = [functional.dropout(x, 0.5) for _ in range(100)]
    different = len({tuple(output[:256].tolist()) for output in replayed})
    equal = sum(map(torch.equal, replayed, eager))
    yield count_row("different masks in replays of a graph", different, 100, 100)
    yield count_row("of them equal to eager calls with the same seed", equal, 100, 100)


@click.command()
def main() -> None:
    """Check and time dropout on a GPU; the two sides of a ratio are timed alternately."""
    if not torch.cuda.is_available():
        raise click.ClickException("this needs a GPU and a build of torch for it")
    kernel = kernels.kernel_for("cuda")
    click.echo(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, kernel {kernel.name}: {kernel.detail()}\n")
    click.echo("| case | dropkit | compared with | times faster | target |\n|---|---|---|---|---|")
    failed: list[str] = []
    for part in (masks, values, graphs, copies, both_ways, noise, memory, fused):
        try:
            for cells in part():
                click.echo(f"| {' | '.join(cells)} |")
        except Exception:
            # The other parts are still worth having.
            failed.append(f"{part.__name__}:\n{traceback.format_exc()}")
            click.echo(f"| {part.__name__} | | | | failed, see below |")
        torch.cuda.empty_cache()
    if failed:
        raise click.ClickException("\n".join(failed))


if __name__ == "__main__":
    main()
