"""Comparison of the mean of the samples with the plain pass, which has no dropout: which is better, and by how much.

Both are measured on the same inputs, so the intervals are those of the differences of each input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dropkit.mc.metrics.common import standard_error

_Z = 1.96


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of a report for the mean of the samples and for the plain pass.

    Attributes:
        sampled, plain: the number of each.
        low, high: the ends of the 95 % interval of `sampled` less `plain`; not a number for one input.
        lower_is_better: false for a likelihood.
    """

    sampled: float
    plain: float
    low: float
    high: float
    lower_is_better: bool = True

    @property
    def verdict(self) -> Literal["better", "worse", "no clear difference"]:
        """ "better" or "worse" if the interval leaves out 0, which says how sampling is; else "no clear difference"."""
        if not (self.low > 0 or self.high < 0):
            return "no clear difference"
        return "better" if (self.high < 0) == self.lower_is_better else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The mean of the samples beside the plain pass.

    Attributes:
        differences: of each number, by its name.
    """

    differences: Mapping[str, Difference]

    @property
    def sentence(self) -> str:
        """Which of the two is better, with the intervals."""
        return "; ".join(
            f"{'sampling is ' if item.verdict in ('better', 'worse') else ''}{item.verdict} by {_DECISIVE[name]}: "
            f"{item.sampled:.4f}, plain pass {item.plain:.4f}, difference {item.sampled - item.plain:+.4f} "
            f"(95 % interval {item.low:+.4f} to {item.high:+.4f})"
            for name, item in self.differences.items()
            if name in _DECISIVE
        )

    def table(self) -> str:
        """Return the numbers of both as aligned text, with the sentence."""
        head = f"{'':<32} {'sampled':>11} {'plain pass':>11}  difference, 95 % interval"
        rows = [
            f"{name:<32} {item.sampled:>11.4f} {item.plain:>11.4f}  {item.low:+.4f} to {item.high:+.4f}, {item.verdict}"
            for name, item in self.differences.items()
        ]
        return "\n".join([head, *rows, *self.sentence.split("; ")])


# The numbers that the sentence names: of the whole prediction, and of its calibration.
_DECISIVE = {"nll": "negative log-likelihood", "ece": "calibration error", "log_likelihood": "log-likelihood"}


def difference(
    sampled: float, plain: float, influences: Tensor, lower_is_better: bool = True, counted: Tensor | None = None
) -> Difference:
    """Return a difference with its interval.

    Args:
        influences: (N, ...), the difference that each label makes; their mean has the spread of the difference.
        counted: as for `standard_error`.
    """
    reach = _Z * standard_error(influences, counted)
    return Difference(sampled, plain, sampled - plain - reach, sampled - plain + reach, lower_is_better)
