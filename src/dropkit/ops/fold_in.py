"""Deriving keys by an operator, since inductor compiles wrapping 64-bit arithmetic differently.

One key takes 669 of torch's operators. So a single key on the CPU is derived from ints, and a GPU has a kernel.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from dropkit.kernels import cpu, gpu, kernel_for, reference
from dropkit.kernels.gpu import fold_in as on_gpu
from dropkit.kernels.key import as_tensor, batch_shape, is_pair, seed_and_first_block

_WORD = 0xFFFFFFFF
_FEISTEL_ROUNDS = 4

# Kept alive: the operator goes when its library does.
_library = torch.library.Library("dropkit", "FRAGMENT")
_library.define("fold_in_v1(Tensor key, Tensor n) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))


def fold_in(key: Tensor, n: Tensor) -> Tensor:
    """Derived keys, see `dropkit.random.fold_in`; a batch of keys and int64 numbers that broadcast."""
    if is_pair(key):
        return _fold_in_pair(key, n)
    if key.is_cpu and n.is_cpu and key.dim() == n.dim() == 0:
        return as_tensor(_folded(int(key), int(n)), key.device)
    if key.is_cuda and n.device == key.device and kernel_for("cuda").drop is gpu.drop:
        return on_gpu.fold_in(key, n)
    left, right = (n >> 32) & _WORD, n & _WORD
    zero, one = torch.zeros_like(right), torch.ones_like(right)
    for r in range(_FEISTEL_ROUNDS):
        left, right = right, left ^ reference.philox((right, zero, one * r, one), key)[0]
    return (left << 32) | right


def _folded(key: int, n: int) -> int:
    left, right = (n >> 32) & _WORD, n & _WORD
    for r in range(_FEISTEL_ROUNDS):
        if cpu.missing is None:
            word = cpu.philox(key, right, 1 << 32 | r)[0]
        else:
            word = reference.philox((right, 0, r, 1), key)[0]
        left, right = right, left ^ word
    return left << 32 | right if left < 2**31 else (left << 32 | right) - 2**64


def _fold_in_pair(key: Tensor, n: Tensor) -> Tensor:
    """As torch does it: the four words of the block that lies `n` after the pair's first one are the new pair."""
    seed, first = seed_and_first_block(key)
    w0, w1, w2, w3 = reference.block_words(first + n, seed)
    return torch.stack((w1 << 32 | w0, w3 << 32 | w2), -1).view(torch.uint64)


def fold_in_traced(key: Tensor, n: Tensor) -> Tensor:
    """`fold_in` as an operator, for compilers, transforms and modes."""
    return torch.ops.dropkit.fold_in_v1(key, n)


def _fake(key: Tensor, n: Tensor) -> Tensor:
    shape = cast("tuple[int, ...]", torch.broadcast_shapes(batch_shape(key), n.shape))
    return key.new_empty((*shape, 2) if is_pair(key) else shape)


def _vmap(info: Any, in_dims: tuple[int | None, int | None], key: Tensor, n: Tensor) -> tuple[Tensor, int]:
    # The last dimension of pairs is none of the batch.
    tensors = [(key, in_dims[0], key.dim() - is_pair(key)), (n, in_dims[1], n.dim())]
    rank = max(dims - (dim is not None) for _, dim, dims in tensors)
    aligned = (
        tensor if dim is None else tensor.movedim(dim, 0)[(slice(None), *(None,) * (rank - dims + 1))]
        for tensor, dim, dims in tensors
    )
    return fold_in_traced(*aligned), 0


torch.library.impl(_library, "fold_in_v1", "CompositeExplicitAutograd")(fold_in)
torch.library.register_fake("dropkit::fold_in_v1", _fake, lib=_library)
torch.library.register_vmap("dropkit::fold_in_v1", _vmap, lib=_library)
