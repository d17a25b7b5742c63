"""What the ranks of a group exchange: the sizes of their parts, and the states of their generators."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, cast

import torch
from torch import distributed

from dropkit.ops.slices import Whole
from dropkit.shard import generators
from dropkit.shard.parts import Extent, dynamic


class _Message(NamedTuple):
    """What a rank sends.

    Attributes:
        size: of its part.
        others: the sizes of its input along other dimensions; None if it has not met an input, or holds nothing.
        fingerprints: of its default generators, by type of device.
        shapes: the shapes of the wholes in the block before; None if they do not count.
    """

    size: int
    others: tuple[int, ...] | None
    fingerprints: dict[str, int]
    shapes: frozenset[tuple[int, ...]] | None = None


def checked_group(group: Any) -> Any:
    """The group itself, if ranks can be asked for.

    Raises:
        RuntimeError: there is none.
        TypeError, ValueError: it is a mesh, or a group without this rank.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        raise RuntimeError(
            "dropkit.shard: group must be one of torch.distributed, got None before init_process_group: call "
            "torch.distributed.init_process_group() first, and start the program with torchrun"
        )
    if hasattr(group, "get_group"):
        raise TypeError("dropkit.shard: group must be a process group, got a DeviceMesh: pass mesh.get_group()")
    if distributed.get_rank(group) < 0:
        raise ValueError("dropkit.shard: group must be one that this rank belongs to, got one that it does not")
    return group


def members(group: Any) -> frozenset[int]:
    """The ranks of the group, by their numbers among all."""
    return frozenset(distributed.get_process_group_ranks(group))


def find(extent: Extent, group: Any, size: int, whole: Whole | None = None, dim: int = 0) -> None:
    """Find this rank's part of the whole, by asking all ranks of the group for the sizes of their parts.

    Args:
        whole: the whole so far of the input, and `dim`, the dimension that is split; None where no input was met.
    """
    others = None if whole is None or size == 0 else (*whole.shape[:dim], *whole.shape[dim + 1 :])
    messages = _exchange(group, _Message(size, others, generators.fingerprints(), _shapes_before.pop(group, None)))
    rank, numbers = distributed.get_rank(group), distributed.get_process_group_ranks(group)
    _check_equal(
        numbers,
        [message.shapes for message in messages],
        "wholes of equal shapes on all ranks in a block of data_parallel, or masks are not those of one process; got, "
        "in the block before,",
    )
    _check_equal(
        numbers,
        [message.others for message in messages],
        f"an input of equal sizes on all ranks along all dimensions but {dim}, got, along these,",
    )
    sizes = [message.size for message in messages]
    extent.size, extent.start, extent.total = map(dynamic, (size, sum(sizes[:rank]), sum(sizes)))
    extent.ranks = members(group)
    extent.differing = _differing(numbers, [message.fingerprints for message in messages])


def _exchange(group: Any, message: _Message) -> list[_Message]:
    """The messages of all ranks: sizes at once, and the rest only if it differs somewhere."""
    size, *rest = message
    mine = torch.tensor([size, _digest(rest)], device=_device(group))
    gathered = [torch.empty_like(mine) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(gathered, mine, group)
    pairs = cast("list[list[int]]", torch.stack(gathered).tolist())
    if len({digest for _, digest in pairs}) == 1:
        return [message._replace(size=size) for size, _ in pairs]
    messages: list[Any] = [None] * len(pairs)
    distributed.all_gather_object(messages, tuple(message), group)
    return [_Message(*fields) for fields in messages]


def _digest(values: Sequence[Any]) -> int:
    """64 bits, equal for equal values in all processes."""
    others, fingerprints, shapes = values
    text = repr((others, sorted(fingerprints.items()), shapes and sorted(shapes)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _device(group: Any) -> torch.device:
    """Where the group takes tensors: the CPU if it can."""
    devices = [pair.partition(":")[0] for pair in distributed.get_backend_config(group).split(",")]
    return torch.device("cpu" if "cpu" in devices else devices[0])


def note_shapes(extent: Extent, group: Any) -> None:
    """Keep the shapes that were dropped in a block, to be compared in the exchange of the next one."""
    if extent.size and extent.shapes:
        _shapes_before[group] = frozenset(extent.shapes)


_shapes_before: dict[Any, frozenset[tuple[int, ...]]] = {}


def _check_equal(numbers: list[int], values: list[Any], wanted: str) -> None:
    """Raise RuntimeError unless all ranks, of these numbers, agree that have a value, that is, not None."""
    by_value: dict[Any, list[int]] = defaultdict(list)
    for rank, value in zip(numbers, values, strict=True):
        if value is not None:
            by_value[value].append(rank)
    if len(by_value) > 1:
        got = "; ".join(f"{_plain(value)} on {_names(ranks)}" for value, ranks in by_value.items())
        raise RuntimeError(
            f"dropkit.shard: dropout must have {wanted} {got}. Pad to one length on all ranks, or use "
            "shard.different_masks() instead"
        )


def _plain(value: Any) -> str:
    return ", ".join(map(str, sorted(cast("frozenset[Any]", value)))) if isinstance(value, frozenset) else str(value)


def _differing(numbers: list[int], fingerprints: list[dict[str, int]]) -> dict[str, str]:
    """By type of device, what is wrong with the default generators."""
    differing: dict[str, str] = {}
    for device in {device for of_rank in fingerprints for device in of_rank}:
        by_state: dict[int, list[int]] = defaultdict(list)
        for rank, of_rank in zip(numbers, fingerprints, strict=True):
            if device in of_rank:
                by_state[of_rank[device]].append(rank)
        if len(by_state) > 1:
            alike = "; ".join(_names(ranks) for ranks in by_state.values())
            differing[device] = (
                f"dropkit.shard: default generators of {device} must be in one state on all ranks of the group, got "
                f"{len(by_state)} states, on {alike}: call torch.manual_seed(one seed) on every rank, and draw other "
                "random numbers that differ between ranks from generators of their own; or pass key="
            )
    return differing


def _names(ranks: list[int]) -> str:
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))
