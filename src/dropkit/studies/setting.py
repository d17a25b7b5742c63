"""A setting: a kind of dropout, its rate, and where in the model it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from dropkit.arguments import check

NONE = "none"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is compared: one line of the results.

    Attributes:
        kind: key of `KINDS`, or the name of a layer of `dropkit.nn`.
        p: expected fraction dropped, in [0, 1]; or one rate for each of `sites`.
        sites: names of the modules where dropout is; None for every site of the model. The others have none.

    Raises:
        ValueError: a rate is not in [0, 1], there are other numbers of rates and sites, or no dropout has a rate.
    """

    kind: str = NONE
    p: float | tuple[float, ...] = 0.0
    sites: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        # Plain floats: a setting read from a file must be equal to the one that was written.
        object.__setattr__(self, "p", tuple(map(float, self.p)) if isinstance(self.p, tuple) else float(self.p))
        for rate in self.rates:
            check("p", 0 <= rate <= 1, "in [0, 1]", rate)
        check("sites", self.sites is None or len(self.sites) > 0, "names, or None for all", self.sites)
        if isinstance(self.p, tuple):
            count = None if self.sites is None else len(self.sites)
            check("p", len(self.p) == count, "one rate, or one for each of `sites`", f"{len(self.p)} rates")
        if self.kind == NONE:
            check("kind", self.p == 0 and self.sites is None, "one that drops, with a rate or sites", repr(NONE))

    @property
    def rates(self) -> tuple[float, ...]:
        """All rates: one, or one for each site."""
        return self.p if isinstance(self.p, tuple) else (self.p,)

    @property
    def is_baseline(self) -> bool:
        """Whether this is the model without dropout."""
        return self.kind == NONE

    @property
    def complexity(self) -> tuple[float, float, str]:
        """The order in which settings are preferred where nothing else decides: less dropout, at fewer sites, first."""
        return (sum(self.rates) / len(self.rates), inf if self.sites is None else len(self.sites), self.kind)

    def __str__(self) -> str:
        if self.is_baseline:
            return "no dropout"
        if isinstance(self.p, tuple):
            return f"{self.kind} " + ", ".join(
                f"{site} p={p:g}" for site, p in zip(self.sites or (), self.p, strict=True)
            )
        where = "" if self.sites is None else f" at {', '.join(self.sites)}"
        return f"{self.kind} p={self.p:g}{where}"


# Every other setting is compared with this one.
BASELINE = Setting()


def grid(
    kinds: Iterable[str], rates: Iterable[float], sites: Iterable[tuple[str, ...] | None] = (None,)
) -> tuple[Setting, ...]:
    """Return the baseline, and each kind at each rate at each choice of sites. A rate of 0 is the baseline.

    Example:
        >>> print(*grid(["dropout"], [0.0, 0.5]), sep="; ")
        no dropout; dropout p=0.5
    """
    kinds, rates, sites = list(kinds), list(rates), list(sites)
    for rate in rates:
        check("p", 0 <= rate <= 1, "in [0, 1]", rate)
    others = (Setting(kind, p, at) for kind in kinds if kind != NONE for at in sites for p in rates if p > 0)
    return tuple(dict.fromkeys([BASELINE, *others]))


def ablation(kind: str, p: float, sites: tuple[str, ...]) -> tuple[Setting, ...]:
    """Return the settings that show what each site contributes: all sites, each alone, and each left out."""
    alone = [(site,) for site in sites]
    left_out = [tuple(other for other in sites if other != site) for site in sites]
    return grid([kind], [p], [sites, *alone, *filter(None, left_out)])
