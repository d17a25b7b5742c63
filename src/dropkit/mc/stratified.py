"""Stratified sampling: a Latin hypercube over the T samples, with one dimension for each mask element.

Each mask element passes through the T strata of [0, 1) in an order of its own, one stratum per sample, at a uniform
place inside the stratum. So within one sample the mask elements are independent, means that are unbiased without
stratification are unbiased with it, and for every function of the masks the variance of its mean is at most T/(T-1)
times that of T independent samples. The part of a function that is additive in the mask elements has almost none.

Sources: McKay, Beckman, Conover, "A Comparison of Three Methods for Selecting Values of Input Variables in the Analysis
of Output from a Computer Code", Technometrics 21(2), 1979; Owen, "Monte Carlo Variance of Scrambled Net Quadrature",
SIAM Journal on Numerical Analysis 34(5), 1997 (the bound).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dropkit.kernels.reference import words

# Permutations in each of the two tables, times samples: small enough for a processor's second-level cache.
_ENTRIES = 2**18
# For few samples no more than this: with 1024 in each table, one pair of elements in a million shares both.
_FEWEST, _MOST = 16, 1024

# Of mask elements: indices into the outer and the inner table, int32.
Permutations = tuple[Tensor, Tensor]


class Stratified:
    r"""The orders in which mask elements pass through the strata.

    In sample t element u is in stratum :math:`\pi_u(t) = Q_j[(P_i[t] + s) \bmod T]`: i and j choose among many random
    permutations, s is a shift, and all three come from the element's own words. Elements that differ in i or in j have
    independent permutations, since P and Q are independent and uniform. Of the few pairs that share i and j, one in T
    has the same shift too, and so the same permutation. This takes two table look-ups for each element and sample;
    computing a permutation for each element without tables takes some fifty operations.

    Args:
        samples: T, at least 1.
        key: 64 bits, from which the permutations are drawn.
    """

    def __init__(self, samples: int, key: int) -> None:
        self.samples = samples
        count = min(max(_ENTRIES // samples, _FEWEST), _MOST)
        index = torch.arange(2 * count * samples).view(2, count, samples)
        # Stable, so that the order of equal words does not depend on the library.
        outer, inner = words(index, torch.tensor(key)).argsort(stable=True, dim=-1).int()
        # One row per sample.
        self._outer = outer.t().contiguous()
        # Each permutation twice in a row, so that a shift needs no modulo.
        self._inner = torch.cat([inner, inner], -1).flatten()
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}
        # By rate: whether the stratum of each entry of `_inner` is kept, then the same with one stratum more.
        self._is_kept: dict[tuple[float, torch.device], Tensor] = {}

    def permutations(self, word: Tensor, other: Tensor, p: float) -> Permutations:
        """Choose the permutations of mask elements.

        Args:
            word, other: uniform in [0, 2**32), int64, two for each element.
            p: expected fraction dropped; 0 for `uniform`.
        """
        count = self._outer.shape[1]
        outer = word * count
        inner = other * (count * self.samples) >> 32
        inner += inner // self.samples * self.samples
        # T (1 - p) strata are kept. Where that is no integer, the remaining bits of the word decide for each element
        # whether it is rounded down or up.
        fraction = self.samples * (1 - p) % 1
        inner += ((outer & 0xFFFFFFFF) < fraction * 2**32) * self._inner.numel()
        return (outer >> 32).int(), inner.int()

    def is_kept(self, permutations: Permutations, p: float, sample: int) -> Tensor:
        """Whether each element is kept in this sample: bool."""
        index = self._inner_index(permutations, sample)
        table = self._is_kept.get((p, index.device))
        if table is None:
            whole = int(self.samples * (1 - p))
            table = torch.cat([self._inner < whole, self._inner < whole + 1]).to(index.device)
            self._is_kept[p, index.device] = table
        return table.index_select(0, index).view(permutations[0].shape)

    def uniform(self, permutations: Permutations, sample: int, word: Tensor) -> Tensor:
        """A number in [0, 1) for each element, float64: over the samples, one in each of T equal parts.

        Args:
            permutations: made with p = 0.
            word: uniform in [0, 2**32), int64: the place inside the stratum.
        """
        _, inner = self._tables_on(word.device)
        stratum = inner.index_select(0, self._inner_index(permutations, sample)).view(word.shape)
        return (stratum + word.double() / 2**32) / self.samples

    def _inner_index(self, permutations: Permutations, sample: int) -> Tensor:
        """Indices into `_inner`, flattened: selecting in one dimension takes a fifth of the time of indexing."""
        outer, inner = permutations
        table, _ = self._tables_on(outer.device)
        return table[sample].index_select(0, outer.flatten()).add_(inner.flatten())

    def _tables_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both tables on a device, copied once: a copy waits for a GPU."""
        if device not in self._tables:
            self._tables[device] = self._outer.to(device), self._inner.to(device)
        return self._tables[device]
