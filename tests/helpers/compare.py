"""All observable effects of a call, so that eager and compiled calls can be compared bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend


def observe(function: Callable[..., Any], *inputs: Any) -> list[Tensor]:
    """Outputs, inputs, gradients and the generator's state after a call from seed 0, made on copies of `inputs`."""
    inputs = tuple(_copy(input) if isinstance(input, Tensor) else input for input in inputs)
    torch.manual_seed(0)
    outputs = function(*inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    differentiable = [output for output in outputs if output.requires_grad]
    if differentiable:
        torch.autograd.backward(differentiable, [torch.full_like(output, 2.0) for output in differentiable])
    tensors = [input for input in inputs if isinstance(input, Tensor)]
    grads = [tensor.grad for tensor in tensors if tensor.grad is not None]
    return [tensor.detach() for tensor in outputs + tensors] + grads + [torch.get_rng_state()]


def agree(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether two calls had the same effects, bit by bit."""
    return len(first) == len(second) and all(map(torch.equal, first, second))


def compiled(
    function: Callable[..., Any], backend: Any = "aot_eager", dynamic: bool | None = None
) -> Callable[..., Any]:
    """`function` compiled in one graph, after a reset of the compiler."""
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True, dynamic=dynamic)


def graphs(function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> int:
    """The number of graphs that these calls compile; each must have the effects of the eager call."""
    counter = CompileCounterWithBackend("aot_eager")
    fast = compiled(function, counter)
    for call in calls:
        assert agree(observe(fast, *call), observe(function, *call))
    return counter.frame_count


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)
