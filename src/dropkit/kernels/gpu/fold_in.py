"""Deriving keys on a GPU: launches of the kernel in `feistel`."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from dropkit.kernels.gpu import cdiv
from dropkit.kernels.gpu.launch import Constants, launcher

_BLOCK = 128
# Triton 3.9 warns where fusion, of which integers have none, is neither on nor off.
_CONSTANTS = Constants(BLOCK=_BLOCK, enable_fp_fusion=False, num_warps=1)


def fold_in(key: Tensor, n: Tensor) -> Tensor:
    """The keys that the numbers derive; int64 tensors that broadcast. See `dropkit.random.fold_in`."""
    key, n = cast("list[Tensor]", torch.broadcast_tensors(key, n))
    output = torch.empty(key.shape, dtype=torch.int64, device=key.device)
    if output.numel():
        arguments = output, key.contiguous(), n.contiguous(), output.numel()
        launcher("feistel", "fold_in")(cdiv(output.numel(), _BLOCK), arguments, _CONSTANTS)
    return output
