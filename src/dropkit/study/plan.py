"""A plan: which networks, which kinds of dropout, how many seeds; it yields runs as they finish."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dropkit.arguments import check
from dropkit.study.digits import Digits
from dropkit.study.kinds import ARMS, BASELINE, Arm
from dropkit.study.networks import NETWORKS
from dropkit.study.training import Recipe, Run, train

# Enough that the interval of the change leaves 0 out where the effect is as large as with the recipe as it stands.
SEEDS = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """Every network with every arm and every seed.

    Attributes:
        digits: all there are; the recipe says how many of them train.
        networks: names from `NETWORKS`.
        arms: the first is the baseline.
        seeds: how many; they are 0, 1, 2 ...
        recipe: how each is trained.

    Raises:
        ValueError: there is nothing to train, to test or to compare with.
    """

    digits: Digits
    networks: tuple[str, ...] = tuple(NETWORKS)
    arms: tuple[Arm, ...] = ARMS
    seeds: int = SEEDS
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        for name in self.networks:
            check("network", name in NETWORKS, " or ".join(NETWORKS), name)
        kinds = ", ".join(str(arm) for arm in self.arms)
        check("kinds", self.arms[:1] == (BASELINE,) != self.arms, f"{BASELINE} and at least one other", kinds)
        for arm in self.arms:
            check("p", 0 <= arm.p <= 1, "in [0, 1]", arm.p)
        check("seeds", self.seeds >= 2, "at least 2, since one has no interval", self.seeds)
        check("epochs", self.recipe.epochs >= 1, "at least 1", self.recipe.epochs)
        classes = int(self.digits.labels.max()) + 1
        most = len(self.digits) - classes
        wanted = f"in [{classes}, {most}], a digit of each class to learn and one to test"
        check("digits", classes <= self.recipe.digits <= most, wanted, self.recipe.digits)

    def __len__(self) -> int:
        return len(self.networks) * len(self.arms) * self.seeds

    def runs(self) -> Iterator[Run]:
        """Train everything, arm beside arm, so that a machine that slows down slows all of them."""
        for name in self.networks:
            for seed in range(self.seeds):
                for arm in self.arms:
                    yield train(name, NETWORKS[name], arm, seed, self.digits, self.recipe)
