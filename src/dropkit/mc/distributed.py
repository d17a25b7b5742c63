"""Ranks: batches shared out among the processes of `torch.distributed`, and results brought together again."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def agreed(seed: int) -> int:
    """The first process's seed, on all of them."""
    if _world() == 1:
        return seed
    shared: list[int] = [seed]
    distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def mine(place: int) -> bool:
    """Whether the batch at this place of the stream is this process's."""
    return place % _world() == (distributed.get_rank() if _world() > 1 else 0)


def gathered(found: list[tuple[int, T]]) -> list[T]:
    """What all processes found, in the order of the stream."""
    if _world() > 1:
        everyone: list[list[tuple[int, T]]] = [[] for _ in range(_world())]
        distributed.all_gather_object(everyone, found)
        found = [one for own in everyone for one in own]
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _world() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
