"""Fold the sites of equal layers: `layers.0.drop` to `layers.11.drop` become `layers.0-11.drop`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import groupby
from typing import TypeVar

_Item = TypeVar("_Item")


def folded(
    items: Iterable[_Item], name: Callable[[_Item], str], alike: Callable[[_Item], Hashable]
) -> list[tuple[str, list[_Item]]]:
    """Return names and the items that share them, in order of the first ones.

    Args:
        name: the dotted name of an item.
        alike: items are folded if this is equal for them, and their names differ in one index alone.

    Example:
        >>> folded([0, 1, 2, 4], lambda index: f"layers.{index}.drop", lambda index: None)
        [('layers.0-2,4.drop', [0, 1, 2, 4])]
    """
    groups: dict[Hashable, list[tuple[list[str], _Item]]] = defaultdict(list)
    for item in items:
        parts = name(item).split(".")
        pattern = tuple("#" if part.isdecimal() else part for part in parts)
        groups[pattern, alike(item)].append((parts, item))
    return [named for group in groups.values() for named in _fold(group)]


def _fold(group: Sequence[tuple[list[str], _Item]]) -> list[tuple[str, list[_Item]]]:
    """Fold items whose names differ in indices alone, along the last index that varies."""
    varying = [
        place for place, parts in enumerate(zip(*(parts for parts, _ in group), strict=True)) if len(set(parts)) > 1
    ]
    last = varying[-1] if varying else 0
    rows: dict[tuple[str, ...], tuple[list[str], list[_Item]]] = {}
    for parts, item in group:
        indices, row = rows.setdefault((*parts[:last], "", *parts[last + 1 :]), ([], []))
        indices.append(parts[last])
        row.append(item)
    return [
        (".".join([*parts[:last], _ranges(indices), *parts[last + 1 :]]), row) for parts, (indices, row) in rows.items()
    ]


def _ranges(indices: Sequence[str]) -> str:
    """Write indices as ranges: "0-2,4"."""
    if len(set(indices)) == 1:
        return indices[0]
    ordered = sorted({int(index) for index in indices})
    runs = [list(run) for _, run in groupby(enumerate(ordered), lambda pair: pair[1] - pair[0])]
    ends = [(run[0][1], run[-1][1]) for run in runs]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)
