"""What the rules of the 1xx family ask of a trace: who draws though the model was told to evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from dropkit.facts.mode import ON_PURPOSE
from dropkit.facts.trace import Phase, Site, Trace


def active_in_eval(trace: Trace) -> Iterator[Site]:
    """Sites that draw after `model.eval()`, but for those whose class says that they are to: MCDropout, Prenet ..."""
    for site in trace.sites:
        meant = site.meant or any(fnmatchcase(owner, pattern) for owner in site.owners for pattern in ON_PURPOSE)
        if site.drew(Phase.EVAL) and not meant:
            yield site


def ignores_its_flag(site: Site, by_hand: bool) -> bool:
    """Whether a module draws in evaluation though its own flag says not to; by a mask of its own, or a function."""
    visit = next(visit for visit in site.of(Phase.EVAL) if visit.drew)
    return site.flag_in_eval is False and visit.training is False and (visit.function is None) == by_hand
