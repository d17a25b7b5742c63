"""How much faster are forward and backward than PyTorch's, and what do they save for backward?

A forward and a backward pass of `dropkit.functional.dropout` are compared with those of `torch.nn.functional.dropout`.
The ratio says how many times faster dropkit is; in the last row it is the number of bytes that dropkit saves for
backward.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from side_by_side import Row, faster, has_avx512, threads
from torch import Tensor

from dropkit.functional import dropout

TARGETS = {(1, 20): 0, (1, 24): 0, (2, 20): 13, (2, 24): 20, (2, 26): 20}


def rows() -> list[Row]:
    share = 1 if has_avx512() else 0.5
    table = []
    for (number, power), target in TARGETS.items():
        x, upstream = torch.randn(2**power, requires_grad=True), torch.randn(2**power)

        def step(function: Callable[[Tensor], Tensor], x: Tensor = x, upstream: Tensor = upstream) -> None:
            torch.autograd.grad(function(x), x, upstream)

        with threads(number):
            case = f"float32, 2**{power} elements, threads: {number}"
            goal = f">= {target * share}" if target else ""
            table.append(faster(case, lambda: step(dropout), lambda: step(F.dropout), goal, runs=7))
    return [*table, saved_bytes()]


def saved_bytes() -> Row:
    """Count the bytes that a call on 2**20 elements saves for backward; dropkit saves a key of 8 bytes."""
    x = torch.randn(2**20, requires_grad=True)
    saved: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        saved.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        F.dropout(x)
        theirs, _ = sum(saved), saved.clear()
        output = dropout(x)
    ours = sum(saved) + (output.grad_fn.mask.key.bit_length() + 63) // 64 * 8
    return Row("bytes saved for backward, 2**20 elements", f"{ours} B", f"{theirs} B", ours, "<= 16")
