"""Copies from the host to a GPU that do not wait for it: of what follows from masks that the host computes."""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit.kernels.gpu.capture import is_captured


def send(numbers: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`.

    torch does not use the pinned memory again before the copy has run. A captured graph would read that memory at each
    replay, whatever is there then: while one is captured, the copy is one that waits, which CUDA refuses.
    """
    if device.type != "cuda" or is_captured(device):
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)
