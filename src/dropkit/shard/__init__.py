"""One mask on any number of processes: say which part of a tensor this process holds.

A mask follows from the key and from the coordinates in the whole tensor. Once each process of a data- or
tensor-parallel program has stated its part, they together use the mask that one process with the whole tensor would
use, to the bit. DTensors need none of this. docs/many-processes.md shows what to write for each way to split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dropkit.ops import slices
from dropkit.ops.dtensor_keys import check_keys as check_keys
from dropkit.public_names import public_names
from dropkit.shard.blocks import data_parallel as data_parallel
from dropkit.shard.blocks import different_masks as different_masks
from dropkit.shard.blocks import holding as holding
from dropkit.shard.blocks import micro_batches as micro_batches
from dropkit.shard.blocks import whole as whole
from dropkit.shard.layers import batch_dim as batch_dim
from dropkit.shard.layers import split as split
from dropkit.shard.layers import unsplit as unsplit
from dropkit.shard.parts import Slice as Slice

__all__ = [
    "LocalShard",
    "Slice",
    "batch_dim",
    "check_keys",
    "data_parallel",
    "different_masks",
    "holding",
    "micro_batches",
    "split",
    "unsplit",
    "whole",
]

if TYPE_CHECKING:
    from dropkit.shard.parallel_style import LocalShard as LocalShard

slices.is_used = True


def __getattr__(name: str) -> Any:
    if name == "LocalShard":  # imports torch.distributed.tensor, a second
        from dropkit.shard.parallel_style import LocalShard

        return LocalShard
    raise AttributeError(f"module 'dropkit.shard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return public_names(globals())
