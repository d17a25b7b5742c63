"""What does a call on few elements cost?

With so few elements the time is that of the call, not of the arithmetic. The ratio is dropkit's time as a multiple of
PyTorch's, on one thread: lower is better.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from side_by_side import Row, relative, threads
from torch import Tensor

from dropkit import nn
from dropkit.functional import dropout


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
    for size, target in ((256, "<= 1.1"), (1024, "<= 1.0"), (4096, "<= 1.0"), (16384, "<= 1.0")):
        x, upstream = torch.randn(size, requires_grad=True), torch.randn(size)

        def step(function: Callable[[Tensor], Tensor], x: Tensor = x, upstream: Tensor = upstream) -> None:
            torch.autograd.grad(function(x), x, upstream)

        case = f"forward + backward, {size} elements"
        table.append(relative(case, lambda: step(dropout), lambda: step(F.dropout), target, runs=41))
    return table
