"""An experiment: which networks, arms and seeds are trained; it yields runs as they finish."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dropkit.arguments import check
from dropkit.study.arms import ARMS, BASELINE, Arm
from dropkit.study.digits import Digits
from dropkit.study.networks import NETWORKS
from dropkit.study.training import Recipe, Run, train

# Enough for the interval of the change to exclude 0 where the effect is as large as with the default recipe.
SEEDS = 5


@dataclass(frozen=True, slots=True)
class Experiment:
    """Every network with every arm and every seed.

    Attributes:
        digits: training and test digits; the recipe says how many of them are for training.
        networks: names from `NETWORKS`.
        arms: the first is the baseline.
        seeds: number of seeds; they are 0, 1, 2 ...
        recipe: how each network is trained.

    Raises:
        ValueError: an argument is out of range, or there is nothing to compare with the baseline.
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
        check("seeds", self.seeds >= 2, "at least 2, which an interval needs", self.seeds)
        check("epochs", self.recipe.epochs >= 1, "at least 1", self.recipe.epochs)
        classes = self.num_classes
        most = len(self.digits) - classes
        wanted = f"in [{classes}, {most}], for a training digit and a test digit of each class"
        check("digits", classes <= self.recipe.digits <= most, wanted, self.recipe.digits)

    def __len__(self) -> int:
        return len(self.networks) * len(self.arms) * self.seeds

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.digits.labels.max()) + 1

    @property
    def num_test_digits(self) -> int:
        """Number of digits that are not used for training."""
        return len(self.digits) - self.recipe.digits

    def runs(self) -> Iterator[Run]:
        """Train everything; the arms of a seed take turns, so that a machine that slows down affects all of them."""
        for name in self.networks:
            for seed in range(self.seeds):
                for arm in self.arms:
                    yield train(name, NETWORKS[name], arm, seed, self.digits, self.recipe)
