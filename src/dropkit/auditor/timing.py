"""Time every operator of a training step in several runs, since a single run mostly measures the machine's noise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

import torch

from dropkit.torch_private import TorchDispatchMode
from dropkit.trace import Share, Site, Visit

# The operators of one run, in order, with their seconds.
Run = list[tuple[Any, float]]

# Unobserved runs: the first warms up, then more until their time, in seconds, is spent. With the observed run that
# makes 4 in each quarter.
_MAX_RUNS, _SECONDS = 16, 0.3


class Stopwatch(TorchDispatchMode):
    """A dispatch mode that adds every operator and its time to a run."""

    supports_higher_order_operators = True

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self._synchronize = torch.cuda.synchronize if torch.cuda.is_initialized() else _do_nothing

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.timed(func, args, kwargs or {})

    def timed(self, func: Any, args: Any, kwargs: Any) -> Any:
        self._synchronize()
        begin = perf_counter()
        output = func(*args, **kwargs)
        self._synchronize()
        self.run.append((func, perf_counter() - begin))
        return output


def timed_runs(step: Callable[[Run], None]) -> Iterator[Run]:
    """Yield runs of a step, which is called with the run to add its operators to."""
    begin = perf_counter()
    for index in range(_MAX_RUNS):
        if index and perf_counter() - begin > _SECONDS:
            break
        run: Run = []
        step(run)
        yield run


class Timings:
    """The seconds of each operator of a step in several runs; runs of other operators are left out."""

    def __init__(self, runs: list[Run]) -> None:
        operators = [operator for operator, _ in runs[-1]]
        # By run, then by operator.
        self._runs = [[seconds for _, seconds in run] for run in runs if [operator for operator, _ in run] == operators]
        self._least = _least(self._runs)

    @property
    def seconds(self) -> float:
        """The least time of every operator, summed."""
        return sum(self._least)

    def attribute(self, timed: Iterable[tuple[Visit, int]], sites: Iterable[Site]) -> Share:
        """Give visits and sites the time of their operators, and return the share of all sites together."""
        numbers: dict[int, list[int]] = defaultdict(list)
        for visit, number in timed:
            visit.seconds += self._least[number]
            numbers[id(visit)].append(number)
        every: list[int] = []
        for site in sites:
            own = [number for visit in site.visits for number in numbers[id(visit)]]
            site.share = self._share(own)
            every += own
        return self._share(every)

    def _share(self, numbers: list[int]) -> Share:
        """The share of some operators by all runs, and by each quarter of the runs."""
        if len(self._runs) < 2 or not numbers:
            return Share()
        # The first run, which warms up, is in none of them.
        quarters = (_least(runs) for first in range(1, 5) if (runs := self._runs[first::4]))
        runs = [times for times in (self._least, *quarters) if any(times)]
        shares = [sum(times[number] for number in numbers) / sum(times) for times in runs]
        return Share(min(shares, default=0.0), max(shares, default=0.0))


def _least(runs: list[list[float]]) -> list[float]:
    return [min(times) for times in zip(*runs, strict=True)]


def _do_nothing() -> None:
    pass
