"""DTensors of values that every rank has, and comparison of a rank's part with the whole."""

from __future__ import annotations

import functools
import itertools
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from dropkit.nn import LAYERS
from dropkit.nn.layer import Layer

# Every layer, and every variant of one, by name.
ALL_LAYERS = {
    f"{layer.name}{number or ''}": record for layer in LAYERS for number, record in enumerate((layer, *layer.variants))
}
Placements = tuple[Any, ...]


@functools.cache  # torch compiles operators on one mesh object alone; others that are equal confuse its caches
def mesh_of(sizes: tuple[int, ...]) -> DeviceMesh:
    """A mesh of these sizes on the CPU."""
    ranks = torch.arange(torch.Size(sizes).numel())
    return DeviceMesh("cpu", ranks.view(sizes))


def shardings(mesh: DeviceMesh, dims: int, most: int = 12) -> list[Placements]:
    """Each dimension of the mesh shards a dimension of the tensor, or copies: all such placements, or some of many."""
    every = list(itertools.product([Replicate(), *map(Shard, range(dims))], repeat=mesh.ndim))
    return every if len(every) <= most else Random(dims).sample(every, most)


def shared(whole: Tensor, mesh: DeviceMesh, placements: Placements) -> Any:
    """The whole tensor, which each rank has, as a DTensor."""
    return distribute_tensor(whole, mesh, placements, src_data_rank=None)


def equal(output: Any, whole: Tensor, stride: tuple[int, ...] | None = None) -> bool:
    """Whether this rank's part of `output` has the bits of the whole tensor, which is described right.

    Args:
        stride: strides of `output`, if not those of the whole tensor.
    """
    output, whole = output.detach(), whole.detach()
    part = shared(whole, output.device_mesh, output.placements)
    same = output.shape == whole.shape and output.stride() == (stride or part.stride()) and output.dtype == whole.dtype
    return same and torch.equal(output.to_local(), part.to_local())


def values(layer: Layer, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random numbers of odd sizes: no mesh divides them, and some ranks of the larger ones get nothing."""
    sizes = (5, 3, 7, 3, 3)[: len(layer.example_shape)]
    return torch.randn(sizes, dtype=dtype, generator=torch.Generator().manual_seed(3))
