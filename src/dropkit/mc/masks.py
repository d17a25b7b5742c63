"""Coins: which mask an input gets, as a function of the seed, the site, the sample and the input alone.

Each site of a pass has a key for each sample, and under it each group of inputs has 2**32 coins of its own: a group is
one input, a chunk of neighbours, or all. Where a batch begins and ends does not enter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from math import prod
from typing import cast

import torch
from torch import Tensor

from dropkit import kernels, random
from dropkit.kernels.mask import mask_strides
from dropkit.kernels.params import DropoutParams, unscaled
from dropkit.kernels.reference import mask_indices, words
from dropkit.mc.batch_dim import Layout
from dropkit.mc.stratified import Stratified
from dropkit.nn.mask_shapes import MaskShape

# More than a tensor that fits a machine has coins for one input.
_OWN = 2**32
# Sites whose keys are made together.
_AT_A_TIME = 16
# Folded into the seed, far from the number of any site, for the key of the strata's permutations.
_STRATA = 2**40
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# Of each coin some ten numbers of eight bytes are made on the way to its word.
_COINS_AT_ONCE = 2**16


class Masks(str, Enum):
    """Which inputs share a mask."""

    INPUT = "input"
    CHUNK = "chunk"
    SHARED = "shared"


@dataclass(frozen=True)
class Rows:
    """The inputs of a batch: the number that each has, and the group that its masks belong to.

    Attributes:
        ids: (N,), int64.
        group: of all of them; None if each is a group of its own.
    """

    ids: Tensor
    group: int | None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def first(self) -> int:
        """The number of the first input, or of the group: where there is no saying what is whose."""
        return int(self.ids[0]) if self.group is None else self.group

    @cached_property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """Neighbours with consecutive numbers: (place of the first, how many, its number)."""
        breaks = cast("list[int]", (self.ids.diff() != 1).nonzero().flatten().add(1).tolist())
        ends = zip([0, *breaks], [*breaks, len(self.ids)], strict=True)
        return tuple((begin, end - begin, int(self.ids[begin])) for begin, end in ends)


@dataclass(frozen=True)
class Mask:
    """The coins of one tensor.

    Attributes:
        shape: of the tensor, with the inputs in a dimension of their own.
        axis: that dimension; None if the layout is not known, and all the tensor has one mask.
        steps: from one coin to the next along each dimension; along `axis` 2**32, or 0 where inputs share a mask.
        runs: places along `axis` with the number of the first coin.
    """

    shape: tuple[int, ...]
    axis: int | None
    steps: tuple[int, ...]
    runs: tuple[tuple[int, int, int], ...]

    @cached_property
    def only(self) -> int | None:
        """The one dimension along which coins differ, if it is one and inputs share them."""
        differing = [dim for dim, step in enumerate(self.steps) if step]
        return differing[0] if len(differing) == 1 and differing[0] != self.axis else None

    def parts(self, *tensors: Tensor) -> Iterator[tuple[tuple[Tensor, ...], int]]:
        """The tensors, run by run, each with its first coin."""
        whole = tuple(_split(tensor, self) for tensor in tensors)
        if len(self.runs) == 1 or self.axis is None:
            yield whole, self.runs[0][2]
            return
        for begin, size, base in self.runs:
            yield tuple(tensor.narrow(self.axis, begin, size) for tensor in whole), base


def mask(shape: Sequence[int], unit: MaskShape | None, layout: Layout | None, rows: Rows) -> Mask:
    """The coins of a tensor of this shape, whose mask without Monte Carlo has the shape `unit`."""
    if layout is None:
        # One input, or no saying which coin is whose.
        return Mask(tuple(shape), None, mask_strides(unit or tuple(shape)), ((0, 1, rows.first * _OWN),))
    whole, axis = layout.axis(shape, len(rows))
    if unit is None:
        own = list(whole)
    else:
        own = [*unit[: layout.dim], *((1, 1) if len(whole) > len(shape) else (1,)), *unit[layout.dim + 1 :]]
        if len(whole) > len(shape) and unit[layout.dim] != 1:
            # The dimension that the inputs are folded into has coins of its own, too.
            own[layout.dim : layout.dim + 2] = whole[layout.dim : layout.dim + 2]
    own[axis] = 1
    steps = list(mask_strides(tuple(own)))
    if rows.group is not None:
        return Mask(whole, axis, tuple(steps), ((0, len(rows), rows.group * _OWN),))
    steps[axis] = _OWN
    runs = tuple((begin, size, number * _OWN) for begin, size, number in rows.runs)
    return Mask(whole, axis, tuple(steps), runs)


class Coins:
    """The draws of all samples.

    Args:
        seed: 64 bits.
        samples: how many there will be at most.
        stratified: make each mask element pass through the strata of [0, 1), instead of drawing it independently.
    """

    def __init__(self, seed: int, samples: int, stratified: bool = False) -> None:
        self._seed, self._samples = random.key(seed), samples
        self._stratified = Stratified(samples, int(random.fold_in(self._seed, _STRATA))) if stratified else None
        self._keys: list[list[int]] = []
        # Site by site, and what they were made for.
        self._places: dict[int, tuple[tuple[object, ...], tuple[Tensor, Tensor]]] = {}

    def key(self, site: int, sample: int) -> int:
        """The key of a site in a sample; the two after the last sample are those of its stratification."""
        while site >= len(self._keys):
            # Many at a time, which takes as long as one.
            sites = torch.arange(len(self._keys), len(self._keys) + _AT_A_TIME)
            of_sites = random.fold_in(self._seed, sites)[:, None]
            self._keys += random.fold_in(of_sites, torch.arange(self._samples + 2)).tolist()
        return self._keys[site][sample]

    def unseen(self, sample: int, first: int) -> int:
        """A seed for what draws where it is not seen."""
        return ~self.key(0, sample) ^ first

    def forget_batch(self) -> None:
        """The next batch begins: what was kept for this one is of no use."""
        self._places.clear()

    def drop(self, output: Tensor, input: Tensor, mask: Mask, rule: Callable[[float], DropoutParams], p: float,
             site: int, sample: int) -> None:  # fmt: skip
        """Write every element of `output`; both may be the same tensor."""
        params = rule(p)
        if self._stratified is None:
            key = self.key(site, sample)
            for (out, given), base in mask.parts(output, input):
                kernels.drop(out, given, kernels.Mask(key, params, mask.steps, base))
            return
        keep = self._kept(mask, p, site, sample, input.device)
        target = _split(output, mask)
        torch.mul(_split(input, mask), params.scale, out=target)
        if params.shift:
            target.add_(params.shift)
        if params.fill:
            target.masked_fill_(~keep, params.fill)
        else:
            # Masking bits is ten times as fast as masked_fill_, and turns NaN into 0, too.
            bits = _BITS[target.element_size()]
            target.view(bits).bitwise_and_(keep.to(bits).neg_())

    def kept(self, mask: Mask, p: float, site: int, sample: int, device: torch.device) -> Tensor:
        """The places that are kept along the one dimension with coins, int64."""
        dim = mask.only
        assert dim is not None
        if self._stratified is not None:
            return self._kept(mask, p, site, sample, device).flatten().nonzero().flatten()
        ones = torch.ones(mask.shape[dim], device=device)
        kernels.drop(ones, ones, kernels.Mask(self.key(site, sample), unscaled(p), (1,), mask.runs[0][2]))
        return ones.nonzero().flatten()

    def uniform(self, mask: Mask, site: int, sample: int, device: torch.device) -> Tensor:
        """A number in [0, 1) for each element of the mask's shape, float64."""
        key = self.key(site, sample)
        word = _joined([_words_of(shape, mask, base, key, device) for shape, base in _shapes(mask)], mask)
        if self._stratified is None:
            return (word.double() / 2**32).expand(mask.shape)
        places = self._placed(mask, 0.0, site, device)
        return self._stratified.uniform(places, sample, word).expand(mask.shape)

    def _kept(self, mask: Mask, p: float, site: int, sample: int, device: torch.device) -> Tensor:
        """Whether stratified sampling keeps each mask element: bool, of a shape that broadcasts with the mask's."""
        assert self._stratified is not None
        return self._stratified.kept(self._placed(mask, p, site, device), p, sample)

    def _placed(self, mask: Mask, p: float, site: int, device: torch.device) -> tuple[Tensor, Tensor]:
        assert self._stratified is not None
        made_for = mask.shape, mask.steps, p
        if site not in self._places or self._places[site][0] != made_for:
            keys = self.key(site, self._samples), self.key(site, self._samples + 1)
            parts: list[tuple[Tensor, Tensor]] = []
            for shape, base in _shapes(mask):
                word, other = (_words_of(shape, mask, base, key, device) for key in keys)
                parts.append(self._stratified.places(word, other, p))
            outer = _joined([outer for outer, _ in parts], mask)
            inner = _joined([inner for _, inner in parts], mask)
            self._places[site] = made_for, (outer, inner)
        return self._places[site][1]


def _words_of(shape: Sequence[int], mask: Mask, base: int, key: int, device: torch.device) -> Tensor:
    """The word of each mask element of a part of a mask, of a shape that broadcasts with the part's."""
    return words(mask_indices(_distinct(shape, mask.steps), mask.steps, base, device), torch.tensor(key, device=device))


def _joined(parts: list[Tensor], mask: Mask) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, mask.axis or 0)


def _shapes(mask: Mask) -> Iterator[tuple[tuple[int, ...], int]]:
    """The mask in parts of not too many coins each: their shapes, and the first coin of each."""
    each = prod(_distinct(mask.shape, mask.steps))
    for _, size, base in mask.runs:
        if mask.axis is None or not mask.steps[mask.axis]:
            yield mask.shape, base
            continue
        rows = max(1, _COINS_AT_ONCE * mask.shape[mask.axis] // max(each, 1))
        for begin in range(0, size, rows):
            shape = list(mask.shape)
            shape[mask.axis] = min(rows, size - begin)
            yield tuple(shape), base + begin * mask.steps[mask.axis]


def _distinct(shape: Sequence[int], steps: Sequence[int]) -> list[int]:
    """The sizes, 1 where all along a dimension share a coin."""
    return [size if step else 1 for size, step in zip(shape, steps, strict=True)]


def _split(tensor: Tensor, mask: Mask) -> Tensor:
    """A view of the tensor in the mask's shape: one dimension taken apart, which every layout allows."""
    if tensor.dim() == len(mask.shape):
        return tensor
    assert mask.axis is not None
    dim = next(dim for dim, size in enumerate(tensor.shape) if size != mask.shape[dim])
    return cast("Tensor", tensor.unflatten(dim, mask.shape[dim : dim + 2]))
