"""The meta kernel: tensors without memory have nothing to write."""

from __future__ import annotations

from torch import Tensor

from dropkit.kernels.mask import Mask


def detail() -> str:
    return "shapes only"


def drop(output: Tensor, input: Tensor, mask: Mask, add: Tensor | None = None) -> None:
    """Do nothing; see `dropkit.kernels.Kernel.drop`."""
