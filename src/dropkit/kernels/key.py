"""Keys as the kernels read them: 64 bits, or the pair of 64 bits and a first block that torch's own keys are.

Philox turns a counter into a block of four words. Mask index `j` uses word `j % 4` of block `j // 4`; under a pair, of
block `first + j // 4` modulo 2**64, where `torch.func._random` reads the word of element `j`, too. A pair is a tuple of
two ints, or a uint64 tensor whose last dimension has two elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeGuard, cast

import torch
from torch import Tensor

Key: TypeAlias = "Tensor | int | tuple[int, int]"

# The range of a drawn key. torch's ranges end before their upper bound, so one key in 2**64 is never drawn.
LOWEST, HIGHEST = -(2**63), 2**63 - 1


def is_pair(key: object) -> TypeGuard[Tensor]:
    """Whether a tensor holds pairs. Single numbers are int64, as everywhere in torch but in its own keys."""
    return isinstance(key, Tensor) and key.dtype == torch.uint64


def batch_shape(key: Tensor) -> tuple[int, ...]:
    """The shape of a batch of keys; () for one key."""
    return tuple(key.shape[:-1] if is_pair(key) else key.shape)


def check_batch(key: Tensor, shape: Sequence[int]) -> None:
    """Refuse a tensor that is neither one key nor a key for each slice along the first dimensions of a tensor.

    Args:
        shape: of the tensor.

    Raises:
        TypeError: another dtype or shape.
    """
    batch = batch_shape(key)
    is_whole = key.shape[len(batch) :] == (2,) if is_pair(key) else key.dtype == torch.int64
    if not is_whole or batch != tuple(shape[: len(batch)]):
        wanted = (
            "an int64 tensor, 0-d or of the input's first sizes, or a uint64 tensor with a last dimension of 2 besides"
        )
        raise TypeError(f"key must be {wanted}, got a tensor of {key.dtype} and shape {tuple(key.shape)}")


def read(key: Tensor) -> int | tuple[int, int]:
    """The numbers of one key on the CPU, as int64; a pair whose first block is 0 is its 64 bits."""
    if not is_pair(key):
        return int(key)
    seed, first = cast("list[int]", key.view(torch.int64).tolist())
    return (seed, first) if first else seed


def as_tensor(key: Key, device: torch.device) -> Tensor:
    """The key as a tensor: itself, or its numbers on `device`."""
    if isinstance(key, Tensor):
        return key
    # Filled, since a copy from the CPU would wait for a GPU, and graphs cannot capture it.
    if isinstance(key, tuple):
        seed, first = ((number - LOWEST) % 2**64 + LOWEST for number in key)
        pair = torch.full((2,), seed, dtype=torch.int64, device=device)
        pair[1:].fill_(first)
        return pair.view(torch.uint64)
    if device.type == "cpu":
        return torch.tensor(key, dtype=torch.int64, device=device)
    return torch.full((), key, dtype=torch.int64, device=device)


def seed_and_first_block(key: Tensor) -> tuple[Tensor, Tensor]:
    """The two numbers of each key of a batch, as int64."""
    if is_pair(key):
        seed, first = key.view(torch.int64).unbind(-1)
        return seed, first
    return key, torch.zeros_like(key)
