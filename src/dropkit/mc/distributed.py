"""Distribute the batches of `predict` over the processes of `torch.distributed`, and gather the results."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def broadcast_seed(seed: int) -> int:
    """Return the seed of the first process, in every process."""
    if _world_size() == 1:
        return seed
    seeds: list[int] = [seed]
    distributed.broadcast_object_list(seeds, src=0)
    return seeds[0]


def is_mine(index: int) -> bool:
    """Whether this process computes the batch with this index."""
    return index % _world_size() == (distributed.get_rank() if _world_size() > 1 else 0)


def gather(results: list[tuple[int, T]]) -> list[T]:
    """Return the results of all processes, each given with the index of its batch, in the order of the batches."""
    if _world_size() > 1:
        by_process: list[list[tuple[int, T]]] = [[] for _ in range(_world_size())]
        distributed.all_gather_object(by_process, results)
        results = [result for of_process in by_process for result in of_process]
    return [result for _, result in sorted(results, key=lambda pair: pair[0])]


def _world_size() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
