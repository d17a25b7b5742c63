"""How much faster is one fused function than the separate calls?

A forward and a backward pass of the fused function are compared with separate calls for dropout, addition, norm and
activation, once with dropkit's dropout and once with PyTorch's. The ratio says how many times faster the fused function
is.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from side_by_side import Row, faster
from torch import Tensor

from dropkit.functional import bias_act_dropout_add, dropout, dropout_add, dropout_add_norm

P = 0.1
COLUMNS = 768

Call = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Drop = Callable[[Tensor, float], Tensor]


def rows() -> list[Row]:
    return [row for dtype in (torch.float32, torch.bfloat16) for row in of_dtype(dtype)]


def of_dtype(dtype: torch.dtype) -> Iterator[Row]:
    x, residual = (torch.randn(512, COLUMNS).to(dtype).requires_grad_() for _ in range(2))
    weight, bias = (torch.randn(COLUMNS).to(dtype).requires_grad_() for _ in range(2))
    tensors = x, residual, weight, bias
    upstream = torch.randn(512, COLUMNS).to(dtype)

    def step(call: Call) -> None:
        torch.autograd.grad(call(*tensors), tensors, upstream, allow_unused=True)

    kind = str(dtype).removeprefix("torch.")
    for name, (together, apart) in CALLS.items():
        case = f"{name}, forward + backward, 512 x {COLUMNS}, {kind}"
        ours = partial(step, together)
        yield faster(f"{case}, separate calls, dropkit", ours, partial(step, apart(dropout)), ">= 1.0", runs=21)
        yield faster(f"{case}, separate calls, PyTorch", ours, partial(step, apart(F.dropout)), ">= 1.0", runs=21)


def added(drop: Drop) -> Call:
    return lambda x, residual, weight, bias: residual + drop(x, P)


def normed(drop: Drop) -> Call:
    return lambda x, residual, weight, bias: F.layer_norm(residual + drop(x, P), (COLUMNS,), weight, bias)


def activated(drop: Drop) -> Call:
    return lambda x, residual, weight, bias: residual + drop(F.gelu(x + bias), P)


CALLS: dict[str, tuple[Call, Callable[[Drop], Call]]] = {
    "dropout_add": (lambda x, residual, weight, bias: dropout_add(x, residual, P), added),
    "dropout_add_norm": (
        lambda x, residual, weight, bias: dropout_add_norm(x, residual, weight, bias, P)[0],
        normed,
    ),
    "bias_act_dropout_add": (
        lambda x, residual, weight, bias: bias_act_dropout_add(x, bias, residual, P),
        activated,
    ),
}
