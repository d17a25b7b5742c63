"""Dropout on a GPU, beside a copy, torch's own and what `torch.compile` makes of it; prints one table in Markdown.

    python benchmarks/gpu

Needs a GPU, a build of torch for it, and dropkit. Takes a few minutes; nothing is written.
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
from dropkit.kernels.params import inverted

P = 0.1
ROUNDS = 15
Row = tuple[str, str, str, str, str]


def microseconds(*calls: Callable[[], Any], large: bool = False) -> list[float]:
    """Median time of each, taken in turn, ten calls a round.

    Args:
        large: the GPU is kept busy while the first calls are launched, so that their launch does not count. Of small
            sizes it is what counts.
    """
    for call in calls:
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, times in zip(calls, taken, strict=True):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            if large:
                torch.cuda._sleep(2_000_000)
            begin.record()
            for _ in range(10):
                call()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 100)
    return [statistics.median(times) for times in taken]


def row(what: str, ours: float, theirs: float, target: float | None, unit: str = "us") -> Row:
    """Times: how many times as fast, and whether that is as much as wanted."""
    ratio = theirs / ours
    met = "" if target is None else f">= {target:g} {'met' if ratio >= target else 'NOT MET'}"
    return what, f"{ours:.4g} {unit}", f"{theirs:.4g} {unit}", f"{ratio:.3f}", met


def masks() -> Iterator[Row]:
    """The mask of the GPU is that of the CPU."""
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
        yield (
            f"values unlike the CPU's, {dtype}",
            f"{wrong}",
            f"of {compared}",
            "",
            "0 " + ("NOT MET" if wrong else "met"),
        )
    far = torch.empty(2**20, device="cuda")
    near = torch.empty(2**20)
    for base in (2**32 - 64, 2**40):
        kernels.drop(far.fill_(1), far, 5, inverted(0.3), (1,), base)
        kernels.drop(near.fill_(1), near, 5, inverted(0.3), (1,), base)
        wrong = int((far.cpu() != near).sum())
        yield f"the same from coin {base} on", f"{wrong}", f"of {2**20}", "", "0 " + ("NOT MET" if wrong else "met")


def values() -> Iterator[Row]:
    """Odd places in memory, in place, numbers that are none: to the bit. The fused functions and their gradients."""
    for dtype in sorted(kernels.FLOATS, key=str):
        x = torch.randn(70_001).to(dtype)
        x[::97], x[5::89] = torch.nan, torch.inf
        wrong = compared = 0
        cases: dict[str, Callable[[Tensor], Tensor]] = {
            "shifted": lambda x: functional.dropout(x[1:], 0.3, key=3),
            "one": lambda x: functional.dropout(x[5:6], 0.3, key=3),
            "fifteen": lambda x: functional.dropout(x[1:16], 0.3, key=3),
            "sliced": lambda x: functional.dropout(x[:70_000].view(100, 700)[:, 1:650], 0.3, key=3),
            "in place": lambda x: functional.dropout(x.clone(), 0.3, inplace=True, key=3),
            "added": lambda x: functional.dropout_add(x, x.flip(0), 0.3, key=3),
        }
        for case in cases.values():
            here, there = case(x), case(x.cuda()).cpu()
            same = (here == there) | (here.isnan() & there.isnan())
            wrong, compared = wrong + int((~same).sum()), compared + here.numel()
        yield f"odd places, {dtype}", f"{wrong}", f"of {compared}", "", "0 " + ("NOT MET" if wrong else "met")
    for dtype, allowed in ((torch.float32, 1e-4), (torch.bfloat16, 0.03), (torch.float16, 0.004)):
        worst: dict[str, float] = {}
        for columns in (5, 12, 64, 1000, 4096, 16384):
            for name, call in FUSED.items():
                here, there = of(call, columns, dtype, "cpu"), of(call, columns, dtype, "cuda")
                for what, one, other in zip(("result", *["gradients"] * 4), here, there, strict=False):
                    off = (one.double() - other.cpu().double()).abs().max() / one.double().abs().max().clamp(min=1e-9)
                    # What is not a number is off by any.
                    worst[f"{name}, {what}"] = max(worst.get(f"{name}, {what}", 0.0), float(off.nan_to_num(torch.inf)))
        for name, off in worst.items():
            met = "met" if off <= allowed else "NOT MET"
            yield f"{name}, {dtype}: off by, of the largest", f"{off:.2g}", "", "", f"<= {allowed:g} {met}"


FUSED: dict[str, Callable[..., Any]] = {
    "dropout_add": lambda x, r, w, b: functional.dropout_add(x, r, 0.3, key=5),
    "dropout_add_norm, layer": lambda x, r, w, b: functional.dropout_add_norm(x, r, w, b, 0.3, key=5)[0],
    "dropout_add_norm, rms": lambda x, r, w, b: functional.dropout_add_norm(
        x, r, w, None, 0.3, norm="rms", row_scale=torch.linspace(0, 2, len(x), dtype=x.dtype, device=x.device), key=5
    )[0],
    "bias_act_dropout_add": lambda x, r, w, b: functional.bias_act_dropout_add(x, b, r, 0.3, key=5),
}


def of(call: Callable[..., Tensor], columns: int, dtype: torch.dtype, where: str) -> list[Tensor]:
    """The result, and the gradient of each input that has one."""
    generator = torch.Generator().manual_seed(columns)
    shapes = ((37, columns), (37, columns), (columns,), (columns,), (37, columns))
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    *given, upstream = made if where == "cpu" else [one.cuda() for one in made]
    given = [one.requires_grad_() for one in given]
    output = call(*given)
    grads = torch.autograd.grad(output, given, upstream, allow_unused=True)
    return [output.detach(), *(grad for grad in grads if grad is not None)]


def copies() -> Iterator[Row]:
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(2**28, device="cuda").to(dtype)
        y = torch.empty_like(x)
        key = torch.tensor(7, device="cuda")
        drop, copy = partial(kernels.drop, y, x, key, inverted(P), None, 0), partial(y.copy_, x)
        yield row(f"forward, {dtype}, 2**28, beside a copy", *microseconds(drop, copy, large=True), 0.92)


def both_ways() -> Iterator[Row]:
    for dtype, wanted in ((torch.bfloat16, 1.15), (torch.float32, 1.05)):
        for power in (10, 14, 18, 20, 22, 24, 26, 28):
            x = torch.randn(2**power, device="cuda", dtype=torch.float32).to(dtype).requires_grad_()
            grad = torch.ones_like(x)

            def run(dropout: Callable[..., Tensor], x: Tensor = x, grad: Tensor = grad) -> None:
                torch.autograd.grad(dropout(x, P), x, grad)

            ours, theirs = microseconds(
                lambda run=run: run(functional.dropout), lambda run=run: run(F.dropout), large=power > 22
            )
            where = " (in cache)" if power <= 22 else ""
            yield row(f"forward + backward, {dtype}, 2**{power}{where}", ours, theirs, wanted if power == 28 else 1.0)
            del x, grad


def fused() -> Iterator[Row]:
    rows, columns = 2**15, 4096
    x, r = (torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(2))
    w, b = (torch.randn(columns, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(2))
    inputs, upstream = (x, r, w, b), (torch.randn_like(x), torch.randn_like(x))

    def apart(x: Tensor, r: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        s = r + F.dropout(x, P)
        return F.layer_norm(s, (columns,), w, b), s

    compiled = torch.compile(apart)

    def run(call: Callable[..., Any]) -> None:
        torch.autograd.grad(call(*inputs), inputs, upstream)

    ours, eager, fast = microseconds(
        lambda: run(lambda *given: functional.dropout_add_norm(*given, P)), lambda: run(apart), lambda: run(compiled)
    )
    yield row("dropout_add_norm, forward + backward, beside eager torch", ours, eager, 3.0)
    yield row("the same beside torch.compile", ours, fast, 1.0)
    with torch.no_grad():
        ours, eager, fast = microseconds(
            lambda: functional.dropout_add_norm(*inputs, P), lambda: apart(*inputs), lambda: compiled(*inputs)
        )
    yield row("dropout_add_norm, forward, beside eager torch", ours, eager, 3.0)
    yield row("the same beside torch.compile", ours, fast, 1.0)

    def run_sum(call: Callable[[Tensor, Tensor], Tensor]) -> None:
        torch.autograd.grad(call(x, r), (x, r), upstream[0])

    ours, eager = microseconds(
        lambda: run_sum(lambda x, r: functional.dropout_add(x, r, P)), lambda: run_sum(lambda x, r: r + F.dropout(x, P))
    )
    yield row("dropout_add, forward + backward, beside eager torch", ours, eager, None)


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
    different = len({tuple(one[:256].tolist()) for one in replayed})
    equal = sum(torch.equal(one, other) for one, other in zip(replayed, eager, strict=True))
    yield (
        "different masks in 100 replays of a graph",
        f"{different}",
        "100",
        "",
        "100 " + ("met" if different == 100 else "NOT MET"),
    )
    yield (
        "of them equal to 100 eager calls from the seed",
        f"{equal}",
        "100",
        "",
        "100 " + ("met" if equal == 100 else "NOT MET"),
    )


@click.command()
def main() -> None:
    """Every row is measured in this one run, the two sides of a ratio in turn."""
    if not torch.cuda.is_available():
        raise click.ClickException("this needs a GPU and a build of torch for it")
    kernel = kernels.kernel_for("cuda")
    click.echo(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, kernel {kernel.name}: {kernel.detail()}\n")
    click.echo("| what | dropkit | beside | times as fast | target |\n|---|---|---|---|---|")
    failed: list[str] = []
    for part in (masks, values, graphs, copies, both_ways, memory, fused):
        try:
            for one in part():
                click.echo(f"| {' | '.join(one)} |")
        except Exception:
            # What follows is worth having all the same.
            failed.append(f"{part.__name__}:\n{traceback.format_exc()}")
            click.echo(f"| {part.__name__} | | | | failed, see below |")
        torch.cuda.empty_cache()
    if failed:
        raise click.ClickException("\n".join(failed))


if __name__ == "__main__":
    main()
