"""What every kernel is handed: layouts, coins and dtypes, and how bits are compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dropkit.kernels import FLOATS, reference
from dropkit.kernels.params import DropoutParams

DTYPES = sorted(FLOATS, key=str)
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

# What a kernel may be handed, by name. Every one has at least one element; the empty ones have a test of their own.
LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "scalar": lambda: torch.randn(()),
    "one": lambda: torch.randn(1),
    "short": lambda: torch.randn(63),
    "ragged": lambda: torch.randn(3, 5, 7),
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
    "sliced": lambda: torch.randn(40, 50)[::2, 1::3],
    "sliced transposed": lambda: torch.randn(90, 80)[1::2, ::3].t(),
    "overlapping": lambda: torch.randn(100).as_strided((20, 30), (2, 1)),
}

# Which coins the elements use: from an input to (unit or None, first coin).
COINS: dict[str, Callable[[Tensor], tuple[tuple[int, ...], int]]] = {
    "element": lambda x: (reference.row_major(x.shape), 0),
    "channel": lambda x: (steps_of_unit((*x.shape[:2], *(1,) * (x.dim() - 2))), 0),
    "sample": lambda x: (steps_of_unit((*x.shape[:1], *(1,) * (x.dim() - 1))), 0),
    "last dimension": lambda x: (steps_of_unit((1,) * (x.dim() - 1) + tuple(x.shape[-1:])), 0),
    "all but the last": lambda x: (steps_of_unit((*x.shape[:-1], 1) if x.dim() else ()), 0),
    "one coin": lambda x: ((0,) * x.dim(), 0),
    "part of a larger tensor": lambda x: (reference.row_major([size + 3 for size in x.shape]), 12345),
    "strange steps": lambda x: (tuple(7 * d + 5 for d in range(x.dim())), 2**32 - 17),
    "beyond 2**32": lambda x: (reference.row_major(x.shape), 2**32 - 100),
    "beyond 2**34": lambda x: (reference.row_major(x.shape), 2**34 - 50),
}


def steps_of_unit(unit: tuple[int, ...]) -> tuple[int, ...]:
    steps = reference.row_major(unit)
    return tuple(0 if size == 1 else step for size, step in zip(unit, steps, strict=True))


def same_bits(a: Tensor, b: Tensor) -> bool:
    as_integers = _BITS[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(as_integers), b.contiguous().view(as_integers))


def by_reference(input: Tensor, key: int, values: DropoutParams, steps: tuple[int, ...], base: int) -> Tensor:
    output = torch.empty_like(input)
    reference.drop(output, input, key, values, steps, base)
    return output


# The coins do not depend on the dtype: all of them with one dtype, and those that take different loops with the others.
GRID = [(coins, torch.float32) for coins in COINS] + [
    (coins, dtype) for coins in ("element", "channel") for dtype in DTYPES if dtype != torch.float32
]
