"""How much faster does a network train if dropped units are not computed?

A training step (forward, cross-entropy, backward, and an optimizer where one is named) of `FeedForward`, `BatchwiseMLP`
or `BatchwiseConv` is compared with that of the same layers with PyTorch's dropout, by element or by channel, and with
that of the same layers without any dropout. The ratio says how many times faster dropkit is. The last rows are of
small batches, above and below the sizes from which on dropkit leaves dropped units out: there dropout should cost no
more than PyTorch's. A step of the smallest network is short enough to show the time of dropkit's Python code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from side_by_side import Row, faster, threads
from torch import Tensor, nn

from dropkit.nn import BatchwiseConv, BatchwiseMLP, FeedForward
from dropkit.nn.batchwise_chain import BatchwiseChain

Optimizer = Callable[..., torch.optim.Optimizer]
THREADS = 2


def rows() -> list[Row]:
    with threads(THREADS):
        return [*blocks(), *mlps(), *convolutions(), *small_batches()]


def blocks() -> Iterator[Row]:
    x = torch.randn(4096, 512)
    targets = {0.5: (">= 3.3", ">= 2.0"), 0.2: (">= 1.9", ">= 1.25"), 0.1: (">= 1.5", ">= 1.1")}
    for p, goals in targets.items():
        yield from against_both(f"512-2048-512, 4,096 tokens, p={p}", FeedForward(512, 2048, p), x, goals)
    block = FeedForward(512, 2048, 0.5, F.silu, gated=True, bias=False)
    yield from against_both("the same with a gate (SwiGLU), p=0.5", block, x)
    for optimizer in (torch.optim.SGD, torch.optim.Adam):
        case = f"512-2048-512, 4,096 tokens, p=0.5, {optimizer.__name__}"
        yield from against_both(case, FeedForward(512, 2048, 0.5), x, optimizer=partial(optimizer, lr=1e-3))


def mlps() -> Iterator[Row]:
    for batch, goals in ((1024, (">= 3.2", ">= 2.2")), (256, (">= 2.2", ">= 1.5"))):
        model = BatchwiseMLP((784, 2048, 2048, 10), 0.5)
        yield from against_both(f"784-2048-2048-10, batch {batch:,}, p=0.5", model, torch.randn(batch, 784), goals)


def convolutions() -> Iterator[Row]:
    for p, goals in ((0.5, (">= 2.3", ">= 2.0")), (0.2, ("", ""))):
        model = BatchwiseConv((16, 64, 64, 10), 3, p, padding=1)
        case = f"3x3 convolutions 16-64-64-10, 64 images of 32x32, p={p}"
        yield from against_both(case, model, torch.randn(64, 16, 32, 32), goals)


def small_batches() -> Iterator[Row]:
    for sizes, target in (((16, 32, 16), ""), ((128, 512, 128), ">= 1.0"), ((512, 2048, 512), ">= 1.0")):
        for batch in (1, 16, 64, 256):
            for p in (0.1, 0.5):
                case = f"{'-'.join(map(str, sizes))}, batch {batch}, p={p}"
                model = FeedForward(sizes[0], sizes[1], p)
                yield next(against_both(case, model, torch.randn(batch, sizes[0]), (target, "")))


def against_both(
    case: str,
    model: FeedForward | BatchwiseChain,
    x: Tensor,
    targets: Sequence[str] = ("", ""),
    optimizer: Optimizer | None = None,
) -> Iterator[Row]:
    """Compare with PyTorch's dropout, then with no dropout."""
    for what, p, target in zip(("PyTorch's dropout", "no dropout"), (model.p, None), targets, strict=True):
        plain = Plain(model, p, x.dim() == 4)
        yield faster(f"{case}, {what}", step(model, x, optimizer), step(plain, x, optimizer), target, runs=9)


class Plain(nn.Module):
    """The layers of a batchwise module, which it shares, with PyTorch's dropout, or with none where `p` is None."""

    def __init__(self, model: FeedForward | BatchwiseChain, p: float | None, drops_channels: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([model.linear1, model.linear2] if isinstance(model, FeedForward) else model.layers)
        self.activation, self.gate = model.activation, getattr(model, "gate", None)
        self.dropout = nn.Identity() if p is None else nn.Dropout2d(p) if drops_channels else nn.Dropout(p)

    def forward(self, input: Tensor) -> Tensor:
        *before, last = self.layers
        for layer in before:
            hidden = self.activation(layer(input))
            input = self.dropout(hidden if self.gate is None else hidden * self.gate(input))
        return last(input)


def step(model: nn.Module, x: Tensor, make: Optimizer | None) -> Callable[[], None]:
    labels = torch.randint(10, (len(x),), device=x.device)
    optimizer = None if make is None else make(model.parameters())

    def run() -> None:
        model.zero_grad()
        F.cross_entropy(model(x).flatten(2).mean(2) if x.dim() == 4 else model(x), labels).backward()
        if optimizer is not None:
            optimizer.step()

    return run
