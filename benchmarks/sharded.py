"""What does a call on a DTensor cost?

A call on a DTensor costs a call on this rank's part of it, and what DTensor adds. The rows with a target compare
dropkit's call on a DTensor with dropkit's on a local tensor plus what DTensor adds to `torch.nn.functional.dropout`.
The others compare what DTensor adds to dropkit's call with what it adds to `relu`, which torch dispatches in C++. One
process of a gloo group on one thread, float32. Lower is better.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from side_by_side import Row, compare, threads
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from dropkit.functional import dropout
from dropkit.report.units import in_seconds

Function = Callable[[Tensor], Tensor]
RUNS = 41


def rows() -> list[Row]:
    with threads(1), group_of_one() as mesh:
        return [
            row
            for size in (256, 4096, 65536)
            for with_gradient in (False, True)
            for row in on_both(mesh, size, with_gradient)
        ]


@contextmanager
def group_of_one() -> Iterator[DeviceMesh]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def on_both(mesh: DeviceMesh, size: int, with_gradient: bool) -> list[Row]:
    """Compare the functions on a local tensor and on a DTensor of as many elements."""
    local = torch.randn(size // 64, 64)
    part = distribute_tensor(local, mesh, [Shard(0)])

    def work(function: Function, input: Tensor) -> Callable[[], Any]:
        if not with_gradient:
            return lambda: function(input)
        leaf, upstream = input.detach().requires_grad_(), torch.ones_like(input)
        return lambda: torch.autograd.grad(function(leaf), leaf, upstream)

    ours, theirs = compare(work(dropout, part), work(F.dropout, part), runs=RUNS)
    our_local, their_local = compare(work(dropout, local), work(F.dropout, local), runs=RUNS)
    relu, relu_local = compare(work(F.relu, part), work(F.relu, local), runs=RUNS)
    case = f"{'forward + backward' if with_gradient else 'forward'}, {size} elements"
    return [
        ratio(case, ours, our_local + theirs - their_local, "<= 1.1"),
        ratio(f"{case}: added to dropout, and to relu", ours - our_local, relu - relu_local),
    ]


def ratio(case: str, ours: float, theirs: float, target: str = "") -> Row:
    return Row(case, in_seconds(ours), in_seconds(theirs), ours / theirs, target)
