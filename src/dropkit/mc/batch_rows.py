"""BatchRows: the ids of the inputs in a batch, and which of them share a mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchRows:
    """The inputs of a batch.

    Attributes:
        ids: the number of each input, (N,), int64.
        group: the number of the group of inputs that share masks; None if each input has masks of its own.
    """

    ids: Tensor
    group: int | None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def first(self) -> int:
        """The group, or the id of the first input; seeds masks that cannot be split by input."""
        return int(self.ids[0]) if self.group is None else self.group

    @cached_property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """Runs of consecutive ids: (index of the first, length, first id)."""
        breaks = cast("list[int]", (self.ids.diff() != 1).nonzero().flatten().add(1).tolist())
        ends = zip([0, *breaks], [*breaks, len(self.ids)], strict=True)
        return tuple((begin, end - begin, int(self.ids[begin])) for begin, end in ends)


def split_by_group(ids: Tensor, group_size: int | None) -> Iterator[tuple[int, int, BatchRows]]:
    """Split a batch where the group changes: (begin, end, rows) of each part.

    Args:
        ids: the number of each input, int64.
        group_size: how many inputs share masks, 0 for all; None if each input has masks of its own.
    """
    if group_size is None:
        yield 0, len(ids), BatchRows(ids, None)
        return
    groups = ids // group_size if group_size else torch.zeros_like(ids)
    breaks = cast("list[int]", groups.diff().nonzero().flatten().add(1).tolist())
    for begin, end in zip([0, *breaks], [*breaks, len(ids)], strict=True):
        yield begin, end, BatchRows(ids[begin:end], int(groups[begin]))
