"""The meta kernel: tensors without memory have nothing to write."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dropkit.kernels.params import DropoutParams


def detail() -> str:
    return "shapes alone"


def drop(
    output: Tensor,
    input: Tensor,
    key: Tensor | int,
    values: DropoutParams,
    steps: Sequence[int] | None,
    base: int,
    add: Tensor | None = None,
) -> None:
    """Do nothing; see `dropkit.kernels.Kernel.drop`."""
