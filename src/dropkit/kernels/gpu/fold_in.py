"""Deriving keys on a GPU: launches of the kernel in `feistel`."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from dropkit.kernels.gpu import cdiv, on_device_of, triton_kernels

_BLOCK = 128


def fold_in(key: Tensor, n: Tensor) -> Tensor:
    """The keys that the numbers derive; int64 tensors that broadcast. See `dropkit.random.fold_in`."""
    key, n = cast("list[Tensor]", torch.broadcast_tensors(key, n))
    output = torch.empty(key.shape, dtype=torch.int64, device=key.device)
    if output.numel():
        with on_device_of(key):
            triton_kernels("feistel").fold_in[(cdiv(output.numel(), _BLOCK),)](
                output, key.contiguous(), n.contiguous(), output.numel(), BLOCK=_BLOCK, num_warps=1
            )
    return output
