"""Deriving keys by an operator, since inductor compiles wrapping 64-bit arithmetic differently."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dropkit.kernels import reference

_WORD = 0xFFFFFFFF
_FEISTEL_ROUNDS = 4

# Kept alive: the operator goes when its library does.
_library = torch.library.Library("dropkit", "FRAGMENT")
_library.define("fold_in_v1(Tensor key, Tensor n) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))


def fold_in(key: Tensor, n: Tensor) -> Tensor:
    """A Feistel network on the 64 bits of `n`, see `dropkit.random.fold_in`; int64 tensors that broadcast."""
    left, right = (n >> 32) & _WORD, n & _WORD
    zero, one = torch.zeros_like(right), torch.ones_like(right)
    for r in range(_FEISTEL_ROUNDS):
        left, right = right, left ^ reference.philox((right, zero, one * r, one), key)[0]
    return (left << 32) | right


def fold_in_traced(key: Tensor, n: Tensor) -> Tensor:
    """`fold_in` as an operator, for compilers, transforms and modes."""
    return torch.ops.dropkit.fold_in_v1(key, n)


def _fake(key: Tensor, n: Tensor) -> Tensor:
    return torch.empty_like(key + n)


def _vmap(info: Any, in_dims: tuple[int | None, int | None], key: Tensor, n: Tensor) -> tuple[Tensor, int]:
    rank = max(tensor.dim() - (dim is not None) for tensor, dim in zip((key, n), in_dims, strict=True))
    aligned = (
        tensor if dim is None else tensor.movedim(dim, 0)[(slice(None), *(None,) * (rank - tensor.dim() + 1))]
        for tensor, dim in zip((key, n), in_dims, strict=True)
    )
    return fold_in_traced(*aligned), 0


torch.library.impl(_library, "fold_in_v1", "CompositeExplicitAutograd")(fold_in)
torch.library.register_fake("dropkit::fold_in_v1", _fake, lib=_library)
torch.library.register_vmap("dropkit::fold_in_v1", _vmap, lib=_library)
