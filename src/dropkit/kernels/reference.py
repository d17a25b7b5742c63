"""The reference: the mask specification in plain torch integer arithmetic, for any device. The oracle of the tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dropkit.kernels.params import DropoutParams

_WORD = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four words for each counter, all held as int64 in [0, 2**32).

    Args:
        counter: four int64 tensors in [0, 2**32) that broadcast with one another and with `key`.
        key: int64, all 64 bits of it.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key & _WORD, (key >> 32) & _WORD
    for _ in range(10):
        # int64 products wrap, and their 64 bits are the unsigned ones.
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _WORD) ^ c1 ^ k0,
            p1 & _WORD,
            ((p0 >> 32) & _WORD) ^ c3 ^ k1,
            p0 & _WORD,
        )
        k0, k1 = (k0 + _W0) & _WORD, (k1 + _W1) & _WORD
    return c0, c1, c2, c3


def words(coin: Tensor, key: Tensor) -> Tensor:
    """The 32-bit word of each coin index, as int64 in [0, 2**32). `coin` and `key` broadcast."""
    block, lane = coin >> 2, coin & 3
    zero = torch.zeros_like(block)
    four = torch.stack(philox((block & _WORD, (block >> 32) & _WORD, zero, zero), key), -1)
    return four.gather(-1, lane.expand(four.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def coins(shape: Sequence[int], steps: Sequence[int], base: int, device: torch.device) -> Tensor:
    """The coin index of each element: base + sum(coordinate * step)."""
    index = torch.full(tuple(shape), base, dtype=torch.int64, device=device)
    for dim, (size, step) in enumerate(zip(shape, steps, strict=True)):
        along = torch.arange(size, dtype=torch.int64, device=device) * step
        index = index + along.view((-1,) + (1,) * (len(shape) - dim - 1))
    return index


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The steps of a mask of this shape with one coin an element."""
    steps = [1] * len(shape)
    for dim in range(len(shape) - 2, -1, -1):
        steps[dim] = steps[dim + 1] * shape[dim + 1]
    return tuple(steps)


def detail() -> str:
    return "plain torch operations, some 100 times slower"


# A kernel writes memory: its callers know the gradient, of which in place autograd would record a second one.
@torch.no_grad()
def drop(
    output: Tensor,
    input: Tensor,
    key: Tensor | int,
    values: DropoutParams,
    steps: Sequence[int] | None,
    base: int,
    add: Tensor | None = None,
) -> None:
    """Write every element of `output`; see `dropkit.kernels.Kernel.drop`."""
    arithmetic = torch.float64 if input.dtype == torch.float64 else torch.float32
    steps = row_major(input.shape) if steps is None else steps
    key = torch.as_tensor(key, dtype=torch.int64, device=input.device)
    keep = words(coins(input.shape, steps, base, input.device), key) >= values.threshold
    kept = input.to(arithmetic) * values.scale
    if values.shift:
        kept = kept + values.shift
    # Not by way of the CPU, for which a device would have to be waited for.
    fill = torch.full((), values.fill, dtype=arithmetic, device=input.device)
    output.copy_(torch.where(keep, kept, fill))
    if add is not None:
        output.add_(add)
