"""Rates as functions of the step, for `RateSchedule`; any other function of the step serves as well.

What they return is a factor on the rate of each site, or the rate itself where the schedule has `relative=False`. Steps
count from 0; after the last of `steps` the value stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dropkit.arguments import check, positive_int


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value at every step.

    Example:
        >>> dropkit.schedules.Constant(0.5)(100)
        0.5
    """

    value: float = 1.0

    def __call__(self, step: int) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class _OverSteps:
    """A rate that moves over a number of steps."""

    steps: int

    def __post_init__(self) -> None:
        positive_int("steps", self.steps)


@dataclass(frozen=True, slots=True)
class Linear(_OverSteps):
    """A straight line from `start` to `end`.

    Args:
        steps: how many; the value is `end` from this step on.
        start, end: the values at step 0 and from step `steps` on.

    Example:
        >>> rate = dropkit.schedules.Linear(steps=4, start=0.0, end=0.2)
        >>> [rate(step) for step in (0, 2, 4, 9)]
        [0.0, 0.1, 0.2, 0.2]
    """

    start: float = 0.0
    end: float = 1.0

    def __call__(self, step: int) -> float:
        return _between(self.start, self.end, min(step / self.steps, 1.0))


@dataclass(frozen=True, slots=True)
class Cosine(_OverSteps):
    """Half a cosine from `start` to `end`: slow at both ends.

    Args:
        steps: how many; the value is `end` from this step on.
        start, end: the values at step 0 and from step `steps` on.

    Example:
        >>> rate = dropkit.schedules.Cosine(steps=4, start=1.0, end=0.0)
        >>> [round(rate(step), 3) for step in (0, 1, 2, 3, 4, 9)]
        [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    start: float = 1.0
    end: float = 0.0

    def __call__(self, step: int) -> float:
        return _between(self.start, self.end, (1 - math.cos(math.pi * min(step / self.steps, 1.0))) / 2)


@dataclass(frozen=True, slots=True)
class Curriculum(_OverSteps):
    r"""From no dropout towards `value`, fast at first: an easy task before the hard one.

    .. math:: v(t) = v\,(1 - e^{-\gamma t}), \qquad \gamma = \mathrm{sharpness} / \mathrm{steps}

    Source: Morerio, Cavazza, Volpi, Vidal, Murino, "Curriculum Dropout", ICCV 2017, arXiv:1703.06229; it recommends a
    sharpness of 10, where `steps` is the length of the training.

    Args:
        steps: length of the training.
        value: what the rate tends to.
        sharpness: 10 leaves 4.5e-5 of `value` to go after `steps`.

    Example:
        >>> rate = dropkit.schedules.Curriculum(steps=100, value=0.5)
        >>> [round(rate(step), 3) for step in (0, 5, 10, 50)]
        [0.0, 0.197, 0.316, 0.497]
    """

    value: float = 1.0
    sharpness: float = 10.0

    def __post_init__(self) -> None:
        _OverSteps.__post_init__(self)  # a slotted dataclass has no `super()` without arguments
        check("sharpness", self.sharpness > 0, "above 0", self.sharpness)

    def __call__(self, step: int) -> float:
        return self.value * -math.expm1(-self.sharpness * step / self.steps)


@dataclass(frozen=True, slots=True)
class Early(_OverSteps):
    """Dropout in the first `steps` only, against underfitting.

    Source: Liu, Xu, Jin, Shen, Darrell, "Dropout Reduces Underfitting", ICML 2023, arXiv:2303.01500.

    Args:
        steps: how many steps drop.
        value: the rate, at step 0.
        decays: whether it falls in a straight line to 0, rather than at once after the last of `steps`.

    Example:
        >>> rate = dropkit.schedules.Early(steps=2, value=0.1)
        >>> [rate(step) for step in range(4)]
        [0.1, 0.1, 0.0, 0.0]
        >>> rate = dropkit.schedules.Early(steps=2, value=0.1, decays=True)
        >>> [rate(step) for step in range(4)]
        [0.1, 0.05, 0.0, 0.0]
    """

    value: float = 1.0
    decays: bool = False

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return 0.0
        return self.value * (1 - step / self.steps) if self.decays else self.value


@dataclass(frozen=True, slots=True)
class Late(_OverSteps):
    """Dropout after the first `steps` only, against overfitting.

    Source: Liu, Xu, Jin, Shen, Darrell, "Dropout Reduces Underfitting", ICML 2023, arXiv:2303.01500.

    Args:
        steps: how many steps do not drop.
        value: the rate, from step `steps` on.

    Example:
        >>> rate = dropkit.schedules.Late(steps=2, value=0.4)
        >>> [rate(step) for step in range(4)]
        [0.0, 0.0, 0.4, 0.4]
    """

    value: float = 1.0

    def __call__(self, step: int) -> float:
        return self.value if step >= self.steps else 0.0


def _between(start: float, end: float, fraction: float) -> float:
    # Exact at both ends.
    return start * (1 - fraction) + end * fraction
