"""Inputs for every kernel: layouts, masks and dtypes, and how bits are compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dropkit.kernels import FLOATS, reference
from dropkit.kernels.mask import Mask, mask_strides, row_major

DTYPES = sorted(FLOATS, key=str)
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

# Inputs by name. Each has at least one element; empty inputs have a test of their own.
LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "scalar": lambda: torch.randn(()),
    "one": lambda: torch.randn(1),
    "short": lambda: torch.randn(63),
    "ragged": lambda: torch.randn(3, 5, 7),
    "short rows": lambda: torch.randn(5, 70, 3),
    "pairs": lambda: torch.randn(3, 80, 2),
    "long": lambda: torch.randn(2**13 + 77),
    "offset": lambda: torch.randn(1000)[3:],
    "transposed": lambda: torch.randn(70, 300).t(),
    "transposed, aligned": lambda: torch.randn(132, 268).t(),
    "permuted": lambda: torch.randn(6, 70, 5, 4).permute(3, 1, 0, 2),
    "channels_last": lambda: torch.randn(2, 70, 9, 11).to(memory_format=torch.channels_last),
    "channels_last, few channels": lambda: torch.randn(3, 3, 20, 21).to(memory_format=torch.channels_last),
    "channels_last, small maps": lambda: torch.randn(2, 270, 7, 7).to(memory_format=torch.channels_last),
    "channels_last_3d": lambda: torch.randn(2, 5, 3, 4, 6).to(memory_format=torch.channels_last_3d),
    "expanded": lambda: torch.randn(5, 1, 7).expand(5, 40, 7),
    "expanded along rows": lambda: torch.randn(3, 1).expand(3, 200),
    "sliced": lambda: torch.randn(40, 50)[::2, 1::3],
    "sliced transposed": lambda: torch.randn(90, 80)[1::2, ::3].t(),
    "overlapping": lambda: torch.randn(100).as_strided((20, 30), (2, 1)),
}

# Which mask elements are used: from an input to (strides of the mask, its offset).
INDICES: dict[str, Callable[[Tensor], tuple[tuple[int, ...], int]]] = {
    "element": lambda x: (row_major(x.shape), 0),
    "channel": lambda x: (mask_strides((*x.shape[:2], *(1,) * (x.dim() - 2))), 0),
    "sample": lambda x: (mask_strides((*x.shape[:1], *(1,) * (x.dim() - 1))), 0),
    "last dimension": lambda x: (mask_strides((1,) * (x.dim() - 1) + tuple(x.shape[-1:])), 0),
    "all but the last": lambda x: (mask_strides((*x.shape[:-1], 1) if x.dim() else ()), 0),
    "one mask element": lambda x: ((0,) * x.dim(), 0),
    "part of a larger tensor": lambda x: (row_major([size + 3 for size in x.shape]), 12345),
    "any strides": lambda x: (tuple(7 * d + 5 for d in range(x.dim())), 2**32 - 17),
    "beyond 2**32": lambda x: (row_major(x.shape), 2**32 - 100),
    "beyond 2**34": lambda x: (row_major(x.shape), 2**34 - 50),
}


def same_bits(a: Tensor, b: Tensor) -> bool:
    as_integers = _BITS[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(as_integers), b.contiguous().view(as_integers))


def by_reference(input: Tensor, mask: Mask) -> Tensor:
    output = torch.empty_like(input)
    reference.drop(output, input, mask)
    return output


# The mask does not depend on the dtype: all indices with one dtype, and two that take different loops with the others.
GRID = [(indices, torch.float32) for indices in INDICES] + [
    (indices, dtype) for indices in ("element", "channel") for dtype in DTYPES if dtype != torch.float32
]
