"""What does a call on few elements cost?

With so few elements the time is that of the call, not of the arithmetic. The ratio is dropkit's time as a multiple of
PyTorch's, on one thread: lower is better. Forward and backward passes are run by functions, by modules, and by
PyTorch's function with and without `dropkit.install()`. PyTorch takes less time to draw a mask on Intel's processors.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from side_by_side import Row, relative, threads
from torch import Tensor

import dropkit
from dropkit import nn
from dropkit.functional import dropout

Function = Callable[[Tensor], Tensor]


def rows() -> list[Row]:
    with threads(1):
        return [*forward(), *forward_backward()]


def forward() -> list[Row]:
    x = torch.randn(256)
    ours, theirs = nn.Dropout(), torch.nn.Dropout()
    return [
        relative("forward, 256 elements, functions", lambda: dropout(x), lambda: F.dropout(x), "<= 0.7", runs=41),
        relative("forward, 256 elements, modules", lambda: ours(x), lambda: theirs(x), runs=41),
    ]


def forward_backward() -> list[Row]:
    table = []
    for size in (256, 1024, 2048, 4096, 16384):
        at_most, installed = ("<= 1.05", "<= 1.15") if size < 2048 else ("<= 1.0", "<= 1.0")
        case = f"forward + backward, {size} elements"
        table += [
            row(f"{case}, functions", size, dropout, F.dropout, at_most),
            row(f"{case}, modules", size, nn.Dropout(), torch.nn.Dropout(), at_most),
            row(f"{case}, installed", size, F.dropout, F.dropout, installed, within=dropkit.installed),
        ]
    return table


def row(case: str, size: int, ours: Function, theirs: Function, target: str, **how: object) -> Row:
    x, upstream = torch.randn(size, requires_grad=True), torch.randn(size)

    def step(function: Function) -> None:
        torch.autograd.grad(function(x), x, upstream)

    return relative(case, lambda: step(ours), lambda: step(theirs), target, runs=201, seconds=1e-3, **how)
