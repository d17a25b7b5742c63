"""LocalShard: `split` as an entry in a plan of `torch.distributed.tensor.parallel.parallelize_module`."""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ParallelStyle

from dropkit.shard.layers import split


class LocalShard(ParallelStyle):
    """Between `ColwiseParallel` and `RowwiseParallel`, whose local tensors a layer drops.

    Args:
        dim: the dimension that is split.
        total: its whole size; ranks exchange their sizes at the first call if it is None.

    Example:
        >>> from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel
        >>> plan = {"fc1": ColwiseParallel(), "drop": LocalShard(-1), "fc2": RowwiseParallel()}
    """

    def __init__(self, dim: int = -1, *, total: int | None = None) -> None:
        super().__init__()
        self.dim: int = dim
        self.total: int | None = total

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        return split(module, self.dim, device_mesh.get_group(), total=self.total)
