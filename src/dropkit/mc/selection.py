"""Selection: which measures `predict` computes, and whether it computes their standard errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from dropkit.arguments import check, did_you_mean
from dropkit.mc.measures import Measure, Prediction, SampleMeans, measures_of
from dropkit.mc.prediction import KINDS
from dropkit.mc.standard_errors import Jackknife

MeasureNames = Literal["all", "basic"] | Iterable[str]

# By default everything is computed for outputs of at most so many numbers for each input. Beyond, the jackknife and the
# votes may take longer than the passes themselves. This depends on the shape alone, so that runs do not differ.
MOST_NUMBERS = 256
# What predictions are shown and padded by.
_ALWAYS = ("mean", "confidence")


@dataclass(frozen=True, slots=True)
class Selected:
    """The measures that are computed from the samples of a batch.

    Attributes:
        measures: by name.
        jackknifed: those that the jackknife computes over groups of samples, by name.
        sums: the names of what is summed over the samples.
        statistics: functions that compute some of it, by name.
        has_errors: whether standard errors are computed.
    """

    measures: Mapping[str, Measure]
    jackknifed: Mapping[str, Measure]
    sums: frozenset[str]
    statistics: Mapping[str, Callable[[Tensor], Tensor]]
    has_errors: bool


def checked_measures(measures: MeasureNames | None, tasks: Iterable[str]) -> str | tuple[str, ...] | None:
    """Return "all", "basic", names, or None, for heads of these tasks.

    Raises:
        ValueError: there is no such measure.
    """
    if measures is None or measures in ("all", "basic"):
        return measures
    names = (measures,) if isinstance(measures, str) else tuple(measures)
    known = {name: None for task in tasks for name in measures_of(KINDS[task])}
    unknown = [name for name in names if name not in known]
    wanted = f'"all", "basic" or some of {", ".join(known)}'
    hint = did_you_mean(str(unknown[0]), ["all", "basic", *known]) if unknown else ""
    check("measures", not unknown, wanted, f"{', '.join(map(str, unknown))}{hint}")
    return names


def select(measures: Any, errors: bool | None, known: Mapping[str, Measure], numbers: int) -> Selected:
    """Return which of the known measures to compute from outputs of so many numbers for each input.

    Args:
        measures: as `checked_measures` returns them; None for "all" if outputs are small, else "basic".
        errors: compute standard errors; None to compute them with all measures alone.
    """
    chosen = measures or ("all" if numbers <= MOST_NUMBERS else "basic")
    has_errors = chosen == "all" if errors is None else errors

    def is_chosen(name: str, measure: Measure) -> bool:
        if chosen == "basic":
            # What follows from sums of what the passes return, without votes or the jackknife.
            sums, corrected = _read(measure)
            return name in _ALWAYS or not ("votes" in sums or corrected)
        return chosen == "all" or name in _ALWAYS or name in chosen

    selected = {name: measure for name, measure in known.items() if is_chosen(name, measure)}
    corrected = {name for measure in selected.values() for name in _read(measure)[1]}
    jackknifed = {
        name: measure
        for name, measure in known.items()
        if name in corrected or (name in selected and has_errors and isinstance(measure.standard_error, Jackknife))
    }
    sums = {name for measure in (*selected.values(), *jackknifed.values()) for name in _read(measure)[0]}
    statistics = {name: measure.statistic for name, measure in known.items() if name in sums and measure.statistic}
    return Selected(selected, jackknifed, frozenset(sums), statistics, has_errors)


@lru_cache(maxsize=64)
def _read(measure: Measure) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the sums and of the corrected measures that a measure is computed from, found by computing it."""
    sums: set[str] = set()
    corrected = _Reads()

    def mean_of(name: str) -> Tensor:
        sums.add(name)
        return torch.full((1, 2), 0.5)

    measure.function(SampleMeans(mean_of, None, corrected))
    return frozenset(sums), frozenset(corrected)


class _Reads(dict[str, Tensor]):
    """A mapping that has every name which is read."""

    def __missing__(self, name: str) -> Tensor:
        self[name] = torch.full((1,), 0.5)
        return self[name]


def not_computed(prediction: Prediction) -> str | None:
    """Return a note on the measures and errors that a prediction lacks, if any."""
    known = measures_of(type(prediction))
    missing = [name for name, measure in known.items() if name not in prediction.measures and not measure.needs]
    if not prediction.standard_error:
        missing.append("standard errors")
    return f'not computed: {", ".join(missing)}; measures="all" computes them' if missing else None
