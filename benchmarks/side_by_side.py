"""Two ways of doing one thing, timed in turn, so that both meet the same machine; the answer is a ratio of medians."""

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

Work = Callable[[], object]
Within = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a ratio of two times (or byte counts), and what it should be.

    `target` is a number with its direction: ">= 25" or "<= 1.4"; "" where the row is there to be known alone.
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
    """Median seconds a call of each, of `runs` samples taken in turn, each as many calls as last `seconds`.

    Ours runs `within` a context, which is entered and left outside of what is timed.
    """
    works: tuple[tuple[Work, Within], ...] = ((ours, within), (theirs, nullcontext))
    repeats: list[int] = []
    for work, context in works:
        with context():
            repeats.append(max(1, round(seconds / _once(work))))
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for (work, context), repeat, taken in zip(works, repeats, samples, strict=True):
            with context():
                begin = time.perf_counter()
                for _ in range(repeat):
                    work()
                taken.append((time.perf_counter() - begin) / repeat)
    return statistics.median(samples[0]), statistics.median(samples[1])


def faster(case: str, ours: Work, theirs: Work, target: str = "", **how: Any) -> Row:
    """How many times faster ours is."""
    mine, other = compare(ours, theirs, **how)
    return Row(case, pretty(mine), pretty(other), other / mine, target)


def relative(case: str, ours: Work, theirs: Work, target: str = "", **how: Any) -> Row:
    """Our time as a multiple of the other's."""
    mine, other = compare(ours, theirs, **how)
    return Row(case, pretty(mine), pretty(other), mine / other, target)


def pretty(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


def wide() -> bool:
    """Whether the CPU kernel runs on AVX-512, for which the targets of speed are twice those of AVX2."""
    return cpu.level() == "avx512"


def machine() -> str:
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} cores, {cpu.level()}; torch {torch.__version__}"


def _once(work: Work) -> float:
    for _ in range(3):  # the first calls pay for what later ones find ready
        begin = time.perf_counter()
        work()
        taken = time.perf_counter() - begin
    return max(taken, 1e-9)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
