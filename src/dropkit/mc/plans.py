"""Plans: how the masks of several samples depend on one another.

Independent masks need no plan. A balanced one keeps every unit equally often: over T samples each is kept T(1-p) times,
rounded up or down by a coin of its own where that is no integer, so that each single mask is what it was, one
independent coin a unit, and every mean that is unbiased without the plan is with it.

Source: the method is stratified sampling, one unit at a time: McKay, Beckman, Conover, "A Comparison of Three Methods
for Selecting Values of Input Variables in the Analysis of Output from a Computer Code", Technometrics 21(2), 1979.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from dropkit.kernels.reference import words

# Orders that units choose among, times samples: small enough for a processor's first cache.
_ENTRIES = 4096
_FEWEST_ORDERS = 16
# Samples in a block; blocks are balanced too, so that their means tell the error of the whole.
_BLOCK = 10
# Far from the coins of any tensor.
_FIRST_COIN = 2**62


class Plan:
    """A balanced plan of `samples` samples.

    Unit u is in stratum (order[t] + shift) mod T in sample t and kept in the first T(1-p) strata. The order is one of
    many, the shift any, both chosen by the unit's word. As the shift is uniform, units are independent of one
    another in each sample, also those that share an order.

    Args:
        samples: T, at least 1.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.blocks = blocks(samples)
        self._orders = max(_FEWEST_ORDERS, _ENTRIES // samples)

    def places(self, word: Tensor, p: float) -> Tensor:
        """For each unit its order and shift, and whether it is rounded up, in one int32.

        Args:
            word: uniform in [0, 2**32), int64, of any shape.
        """
        entries = self._orders * self.samples
        product = word * entries
        # What the place leaves of the word decides the rounding.
        up = (product & 0xFFFFFFFF) < (self.samples * (1 - p) % 1) * 2**32
        return ((product >> 32) + up * entries).int()

    def kept(self, places: Tensor, key: int, p: float, sample: int) -> Tensor:
        """Whether each unit is kept in this sample, bool, of the shape of `places`."""
        stratum = self._strata(key, sample).to(places.device)
        down = int(self.samples * (1 - p))
        table = torch.cat([stratum < down, stratum < down + 1])
        return table[places.flatten()].view(places.shape)

    def uniform(self, places: Tensor, key: int, sample: int, word: Tensor) -> Tensor:
        """For each unit a number in [0, 1), float64: over the samples one in each of T equal parts.

        Args:
            places: made with p = 0.
            word: uniform in [0, 2**32), int64: where in its part.
        """
        stratum = self._strata(key, sample).to(places.device)[places.flatten()].view(places.shape)
        return (stratum + word.double() / 2**32) / self.samples

    def _strata(self, key: int, sample: int) -> Tensor:
        """The stratum in this sample, by place."""
        order = _orders(key, self._orders, self.samples)[:, sample : sample + 1]
        return ((order + torch.arange(self.samples)) % self.samples).flatten()


def blocks(samples: int) -> Tensor:
    """The block of each sample, int64: about ten neighbours, two blocks at least.

    Example:
        >>> blocks(6).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    count = max(2, round(samples / _BLOCK))
    return torch.arange(samples) * count // max(samples, 1)


@lru_cache(maxsize=64)
def _orders(key: int, orders: int, samples: int) -> Tensor:
    """Random orders of the strata, (orders, samples): level by level dealt to the blocks, shuffled within each."""
    block = blocks(samples)
    count = int(block[-1]) + 1
    sizes = block.bincount(minlength=count)
    levels = int(sizes.max())
    coins = _FIRST_COIN + torch.arange(2 * orders * levels * count)
    dealt, shuffled = words(coins, torch.tensor(key)).view(2, orders, levels, count)
    present = torch.arange(levels)[:, None] < sizes
    # What is not there goes last. A double argsort ranks.
    absent = 2**33
    to_block = dealt.where(present, absent).argsort(-1).argsort(-1)
    level = shuffled.where(present, absent).argsort(1).argsort(1)
    place = torch.arange(samples) - (sizes.cumsum(0) - sizes)[block]
    level = level[:, place, block]
    start = torch.cat([torch.zeros(1, dtype=torch.int64), present.sum(1).cumsum(0)])
    return start[level] + to_block[torch.arange(orders)[:, None], level, block]
