"""Masks of `predict`, as a function of the seed, the site, the sample and the input alone.

Each site of a pass has a key for each sample, and under that key each group of inputs has 2**32 mask elements of its
own. A group is one input, a chunk of neighbours, or all inputs. Where a batch begins and ends does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from dropkit import kernels, random
from dropkit.kernels.gpu.send import send
from dropkit.kernels.key import as_tensor
from dropkit.kernels.mask import mask_strides
from dropkit.kernels.params import MakeParams, NoiseParams, Params, unscaled
from dropkit.kernels.reference import mask_indices, words
from dropkit.mc.batch_dim import BatchDim
from dropkit.mc.batch_rows import BatchRows
from dropkit.mc.stratified import Permutations, Stratified
from dropkit.nn.mask_shapes import MaskShape

# Mask elements of a group: more than the tensors of one input have in any machine's memory.
_PER_GROUP = 2**32
# Sites whose keys are computed together, which takes as long as for one.
_SITES_AT_ONCE = 16
# Folded into the seed for the key of the permutations of strata; far from the number of any site.
_STRATA = 2**40
_INTEGER_OF_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# Words computed at once by the reference: some ten intermediate numbers of eight bytes are made for each.
_WORDS_AT_ONCE = 2**16
# Where indices are computed: their number must be known, and asking a GPU would wait for it.
_HOST = torch.device("cpu")


@dataclass(frozen=True)
class MaskSpec:
    """Which mask elements a tensor gets.

    Attributes:
        shape: of the tensor, with the inputs in a dimension of their own.
        batch_dim: that dimension; None if it is not known, and the whole tensor has one mask.
        strides: distance of neighbouring mask elements along each dimension; along `batch_dim` 2**32, or 0 where
            inputs share a mask.
        runs: neighbours along `batch_dim` as (begin, length, offset of the first mask element).
    """

    shape: tuple[int, ...]
    batch_dim: int | None
    strides: tuple[int, ...]
    runs: tuple[tuple[int, int, int], ...]

    @cached_property
    def masked_dim(self) -> int | None:
        """The dimension along which mask elements differ, if it is the only one and inputs share them."""
        differing = [dim for dim, stride in enumerate(self.strides) if stride]
        return differing[0] if len(differing) == 1 and differing[0] != self.batch_dim else None

    def split(self, *tensors: Tensor) -> Iterator[tuple[tuple[Tensor, ...], int]]:
        """Views of the tensors run by run, each with the offset of its first mask element."""
        views = tuple(_unfolded(tensor, self) for tensor in tensors)
        if len(self.runs) == 1 or self.batch_dim is None:
            yield views, self.runs[0][2]
            return
        for begin, size, offset in self.runs:
            yield tuple(view.narrow(self.batch_dim, begin, size) for view in views), offset


def mask_spec(
    shape: Sequence[int], mask_shape: MaskShape | None, batch_dim: BatchDim | None, rows: BatchRows
) -> MaskSpec:
    """Return the mask elements of a tensor of this shape.

    Args:
        mask_shape: the shape of the mask as the dropout makes it outside `predict`; None if it is that of the tensor.

    Raises:
        ValueError: the tensor does not hold the inputs along `batch_dim`.
    """
    if batch_dim is None:
        # There is one input, or which mask elements belong to which input is unknown.
        return MaskSpec(
            tuple(shape), None, mask_strides(mask_shape or tuple(shape)), ((0, 1, rows.first * _PER_GROUP),)
        )
    full, dim = batch_dim.unfold(shape, len(rows))
    is_folded = len(full) > len(shape)
    if mask_shape is None:
        masked = list(full)
    else:
        masked = [*mask_shape[: batch_dim.dim], *((1, 1) if is_folded else (1,)), *mask_shape[batch_dim.dim + 1 :]]
        if is_folded and mask_shape[batch_dim.dim] != 1:
            # What is folded together with the inputs has mask elements of its own, too.
            masked[batch_dim.dim : batch_dim.dim + 2] = full[batch_dim.dim : batch_dim.dim + 2]
    masked[dim] = 1
    strides = list(mask_strides(tuple(masked)))
    if rows.group is not None:
        return MaskSpec(full, dim, tuple(strides), ((0, len(rows), rows.group * _PER_GROUP),))
    strides[dim] = _PER_GROUP
    runs = tuple((begin, size, first * _PER_GROUP) for begin, size, first in rows.runs)
    return MaskSpec(full, dim, tuple(strides), runs)


class SampledMask(NamedTuple):
    """The mask of one site in one sample. A named tuple, because one is made at every site of every pass.

    Attributes:
        p: expected fraction dropped; 0 for uniform numbers.
    """

    spec: MaskSpec
    p: float
    site: int
    sample: int


class MaskSampler:
    """Applies and computes the masks of all samples.

    Args:
        seed: 64 bits.
        samples: the largest number of samples.
        stratified: make each mask element pass through the strata of [0, 1), instead of drawing it independently.
    """

    def __init__(self, seed: int, samples: int, stratified: bool = False) -> None:
        self._seed, self._samples = random.key(seed), samples
        self.is_stratified = stratified
        self._keys: list[list[int]] = []
        # By site: what the permutations of its mask elements depend on, and the permutations.
        self._permutations: dict[int, tuple[tuple[object, ...], Permutations]] = {}

    @cached_property
    def _stratified(self) -> Stratified | None:
        """Made on first use, which takes 0.1 seconds for 100 samples."""
        if not self.is_stratified:
            return None
        return Stratified(self._samples, int(random.fold_in(self._seed, _STRATA)))

    def key(self, site: int, sample: int) -> int:
        """The key of a site in a sample. Two more samples have keys, which choose the permutations of strata."""
        while site >= len(self._keys):
            self._keys += _site_keys(int(self._seed), len(self._keys), self._samples + 2)
        return self._keys[site][sample]

    def seed_outside_sites(self, sample: int, first: int) -> int:
        """A seed for random numbers that are drawn where the mode does not see it, in this sample of a batch."""
        return ~self.key(0, sample) ^ first

    def end_batch(self) -> None:
        """Free what was kept for the passes over a batch."""
        self._permutations.clear()

    def drop(self, output: Tensor, input: Tensor, mask: SampledMask, make_params: MakeParams) -> None:
        """Write every element of `output`; both may be the same tensor."""
        params, spec = make_params(mask.p), mask.spec
        if self._stratified is None:
            key = self.key(mask.site, mask.sample)
            for (target, source), offset in spec.split(output, input):
                kernels.drop(target, source, kernels.Mask(key, params, spec.strides, offset))
            return
        target = _unfolded(output, spec)
        if isinstance(params, NoiseParams):
            uniform = self.uniform(mask._replace(p=0.0), input.device)
            numbers: Tensor = cast("Any", torch.special).ndtri(uniform.clamp_min(2.0**-33))
            target.copy_(_unfolded(input, spec) * (numbers * params.factor + 1) + numbers * params.term)
            return
        is_kept = self._is_kept(mask, input.device)
        torch.mul(_unfolded(input, spec), params.scale, out=target)
        if params.shift:
            target.add_(params.shift)
        if params.fill:
            target.masked_fill_(~is_kept, params.fill)
        else:
            # Masking bits is ten times as fast as masked_fill_, and also turns NaN into 0.
            integer = _INTEGER_OF_SIZE[target.element_size()]
            target.view(integer).bitwise_and_(is_kept.to(integer).neg_())

    def drop_rows(self, input: Tensor, spec: MaskSpec, site: int, samples: Sequence[int], params: Params) -> Tensor:
        """Return the rows of a tensor, each dropped by the mask of another sample.

        Args:
            spec: of one row alone, (1, ...).
        """
        output = torch.empty(input.shape, dtype=input.dtype, device=input.device)
        keys = send(torch.tensor([self.key(site, sample) for sample in samples]), input.device)
        kernels.drop(output, input, kernels.Mask(keys, params, (0, *spec.strides[1:]), spec.runs[0][2]))
        return output

    def kept_indices(self, mask: SampledMask, device: torch.device) -> Tensor:
        """The indices that are kept along `mask.spec.masked_dim`, int64."""
        spec = mask.spec
        assert spec.masked_dim is not None
        if self._stratified is not None:
            return send(self._is_kept(mask, _HOST).flatten().nonzero().flatten(), device)
        ones = torch.ones(spec.shape[spec.masked_dim], device=_HOST)
        key = self.key(mask.site, mask.sample)
        kernels.drop(ones, ones, kernels.Mask(key, unscaled(mask.p), (1,), spec.runs[0][2]))
        return send(ones.nonzero().flatten(), device)

    def uniform(self, mask: SampledMask, device: torch.device) -> Tensor:
        """A number in [0, 1) for each element of the tensor, float64."""
        spec, key = mask.spec, self.key(mask.site, mask.sample)
        word = _concatenated([_words(shape, spec, offset, key, device) for shape, offset in _parts(spec)], spec)
        if self._stratified is None:
            return (word.double() / 2**32).expand(spec.shape)
        return self._stratified.uniform(self._permutations_of(mask, device), mask.sample, word).expand(spec.shape)

    def _is_kept(self, mask: SampledMask, device: torch.device) -> Tensor:
        """Whether stratified sampling keeps each mask element: bool, of a shape that broadcasts with the tensor's."""
        assert self._stratified is not None
        return self._stratified.is_kept(self._permutations_of(mask, device), mask.p, mask.sample)

    def _permutations_of(self, mask: SampledMask, device: torch.device) -> Permutations:
        assert self._stratified is not None
        spec, site = mask.spec, mask.site
        source = spec.shape, spec.strides, mask.p, device
        if site not in self._permutations or self._permutations[site][0] != source:
            keys = self.key(site, self._samples), self.key(site, self._samples + 1)
            parts: list[Permutations] = []
            for shape, offset in _parts(spec):
                word, other = (_words(shape, spec, offset, key, device) for key in keys)
                parts.append(self._stratified.permutations(word, other, mask.p))
            outer = _concatenated([outer for outer, _ in parts], spec)
            inner = _concatenated([inner for _, inner in parts], spec)
            self._permutations[site] = source, (outer, inner)
        return self._permutations[site][1]


@lru_cache(maxsize=16)
def _site_keys(seed: int, first: int, count: int) -> list[list[int]]:
    """The keys of some sites, one for each sample; kept, since a server may predict input by input with one seed."""
    site_keys = random.fold_in(random.key(seed), torch.arange(first, first + _SITES_AT_ONCE))
    return cast("list[list[int]]", random.fold_in(site_keys[:, None], torch.arange(count)).tolist())


def _words(shape: Sequence[int], mask: MaskSpec, offset: int, key: int, device: torch.device) -> Tensor:
    """The word of each mask element of a part of a mask, of a shape that broadcasts with the part's."""
    index = mask_indices(_distinct(shape, mask.strides), mask.strides, offset, device)
    return words(index, as_tensor(key, device))


def _concatenated(parts: list[Tensor], mask: MaskSpec) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, mask.batch_dim or 0)


def _parts(mask: MaskSpec) -> Iterator[tuple[tuple[int, ...], int]]:
    """Split a mask into parts of limited size: the shape of each, and the offset of its first mask element."""
    count = prod(_distinct(mask.shape, mask.strides))
    for _, size, offset in mask.runs:
        if mask.batch_dim is None or not mask.strides[mask.batch_dim]:
            yield mask.shape, offset
            continue
        rows = max(1, _WORDS_AT_ONCE * mask.shape[mask.batch_dim] // max(count, 1))
        for begin in range(0, size, rows):
            shape = list(mask.shape)
            shape[mask.batch_dim] = min(rows, size - begin)
            yield tuple(shape), offset + begin * mask.strides[mask.batch_dim]


def _distinct(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    """The sizes, 1 along dimensions that share a mask element."""
    return [size if stride else 1 for size, stride in zip(shape, strides, strict=True)]


def _unfolded(tensor: Tensor, mask: MaskSpec) -> Tensor:
    """A view of the tensor in the mask's shape: at most one dimension is split, which works for every memory layout."""
    if tensor.dim() == len(mask.shape):
        return tensor
    assert mask.batch_dim is not None
    dim = next(dim for dim, size in enumerate(tensor.shape) if size != mask.shape[dim])
    return cast("Tensor", tensor.unflatten(dim, mask.shape[dim : dim + 2]))
