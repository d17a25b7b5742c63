"""Time two ways of doing the same thing alternately, and compare their medians."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dropkit.kernels import cpu
from dropkit.report.units import in_seconds

Work = Callable[[], object]
Within = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: a ratio of two times or byte counts, and its target.

    Attributes:
        case: what is compared.
        ours, theirs: the two times or byte counts, with units.
        ratio: how they compare, in the direction that the benchmark chooses.
        target: a direction and a number, such as ">= 25" or "<= 1.4"; empty if the row has no target.
    """

    case: str
    ours: str
    theirs: str
    ratio: float
    target: str = ""

    @property
    def met(self) -> str:
        if not self.target:
            return ""
        sign, number = self.target.split()
        return "yes" if (self.ratio >= float(number) if sign == ">=" else self.ratio <= float(number)) else "NO"


def compare(
    ours: Work, theirs: Work, runs: int = 9, seconds: float = 2e-3, within: Within = nullcontext
) -> tuple[float, float]:
    """Return the median seconds per call of each side.

    Args:
        ours, theirs: what is timed.
        runs: number of samples per side, taken alternately.
        seconds: length of a sample; a sample repeats short calls.
        within: context in which `ours` runs; entering and leaving it is not timed.
    """
    works: tuple[tuple[Work, Within], ...] = ((ours, within), (theirs, nullcontext))
    repeats: list[int] = []
    for work, context in works:
        with context():
            repeats.append(max(1, round(seconds / _once(work))))
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for (work, context), repeat, times in zip(works, repeats, samples, strict=True):
            with context():
                _once(work)  # entering the context has filled the processor's caches with other code
                begin = time.perf_counter()
                for _ in range(repeat):
                    work()
                times.append((time.perf_counter() - begin) / repeat)
    return statistics.median(samples[0]), statistics.median(samples[1])


def faster(case: str, ours: Work, theirs: Work, target: str = "", **how: Any) -> Row:
    """Return a row whose ratio says how many times faster `ours` is."""
    our_time, their_time = compare(ours, theirs, **how)
    return Row(case, in_seconds(our_time), in_seconds(their_time), their_time / our_time, target)


def relative(case: str, ours: Work, theirs: Work, target: str = "", **how: Any) -> Row:
    """Return a row whose ratio is the time of `ours` as a multiple of that of `theirs`."""
    our_time, their_time = compare(ours, theirs, **how)
    return Row(case, in_seconds(our_time), in_seconds(their_time), our_time / their_time, target)


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


def has_avx512() -> bool:
    """Return whether the CPU kernel uses AVX-512; the targets of speed are then twice those of AVX2."""
    return cpu.level() == "avx512"


def machine() -> str:
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} cores, {cpu.level()}; torch {torch.__version__}"


def _once(work: Work) -> float:
    for _ in range(3):  # the first calls include one-time costs
        begin = time.perf_counter()
        work()
        seconds = time.perf_counter() - begin
    return max(seconds, 1e-9)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
