"""The reference kernel: the mask specification in torch's integer operations, for any device; the tests' oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from dropkit.kernels.key import as_tensor, seed_and_first_block
from dropkit.kernels.mask import Mask
from dropkit.kernels.numbers import numbers
from dropkit.kernels.params import DropoutParams, NoiseParams

_WORD = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85

_Number = TypeVar("_Number", Tensor, int)


def philox(
    counter: tuple[_Number, _Number, _Number, _Number], key: _Number
) -> tuple[_Number, _Number, _Number, _Number]:
    """Philox4x32-10: four words for each counter, as int64 in [0, 2**32).

    Args:
        counter: four int64 tensors in [0, 2**32) that broadcast with one another and with `key`; or four ints.
        key: int64, all 64 bits of it; or an int.

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


def block_words(block: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four words of each block of 64 bits. `block` and `key`, both int64, broadcast."""
    zero = torch.zeros_like(block)
    return philox((block & _WORD, (block >> 32) & _WORD, zero, zero), key)


def words(index: Tensor, key: Tensor, first: Tensor | int = 0) -> Tensor:
    """The random word of each mask index, 32 bits as int64 in [0, 2**32). The arguments broadcast.

    Args:
        first: the block of mask index 0; int64.
    """
    four = torch.stack(block_words((index >> 2) + first, key), -1)
    lane = index & 3
    return four.gather(-1, lane.expand(four.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def mask_indices(shape: Sequence[int], strides: Sequence[int], offset: int, device: torch.device) -> Tensor:
    """The mask index of each element: offset + sum(coordinate * stride)."""
    index = torch.full(tuple(shape), offset, dtype=torch.int64, device=device)
    for dim, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        along = torch.arange(size, dtype=torch.int64, device=device) * stride
        index = index + along.view((-1,) + (1,) * (len(shape) - dim - 1))
    return index


def detail() -> str:
    return "plain torch operations, some 100 times slower"


# A kernel only writes memory: its callers know the gradient, and autograd would record a second one.
@torch.no_grad()
def drop(output: Tensor, input: Tensor, mask: Mask, add: Tensor | None = None) -> None:
    """Write every element of `output`; see `dropkit.kernels.Kernel.drop`."""
    params = mask.params.resolve()
    arithmetic = torch.float64 if input.dtype == torch.float64 else torch.float32
    key = as_tensor(mask.key, input.device).to(input.device)
    # The key of a slice is that of all its elements.
    key, first = (number[(..., *(None,) * (input.dim() - number.dim()))] for number in seed_and_first_block(key))
    indices = mask_indices(input.shape, mask.strides_for(input.shape), mask.offset, input.device)
    word = words(indices, key, first)
    if isinstance(params, NoiseParams):
        number = numbers(word, params.distribution, arithmetic)
        output.copy_(input.to(arithmetic) * (number * params.factor + 1) + number * params.term)
    else:
        _choose(output, input.to(arithmetic), word >= params.threshold, params)
    if add is not None:
        output.add_(add)


def _choose(output: Tensor, input: Tensor, keep: Tensor, params: DropoutParams) -> None:
    """Write kept and dropped values."""
    kept = input * params.scale
    if params.shift:
        kept = kept + params.shift
    # Made on the device: a copy from the CPU would wait for the device.
    fill = torch.full((), params.fill, dtype=input.dtype, device=input.device)
    output.copy_(torch.where(keep, kept, fill))
