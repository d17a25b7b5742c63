"""The device that the parts run on, and how time, memory and launches are measured there."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from side_by_side import Row
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dropkit.report.units import in_bytes, in_seconds

Work = Callable[[], object]

# Clock cycles that a GPU waits, some five milliseconds, while calls are launched.
_CYCLES = 10_000_000


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU; or, in tests, the CPU, where everything is small, short and not compiled.

    Attributes:
        type: of the device, in torch's words.
    """

    type: str = "cuda"

    @property
    def is_gpu(self) -> bool:
        return self.type != "cpu"

    def size(self, number: int) -> int:
        """A size of a tensor; on the CPU at most 16."""
        return number if self.is_gpu else min(number, 16)

    def times(self, number: int) -> int:
        """A number of repetitions; on the CPU at most 2."""
        return number if self.is_gpu else min(number, 2)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, requires_grad: bool = False) -> Tensor:
        """Random numbers on this device, of a shape that is not made smaller."""
        return torch.randn(shape, device=self.type).to(dtype).requires_grad_(requires_grad)

    def compile(self, function: Any, **options: Any) -> Any:
        """`torch.compile` for the sizes of each call; on the CPU the graph is recorded, and runs as it is."""
        options = options if self.is_gpu else {"backend": "eager"}
        return torch.compile(function, dynamic=False, **options)

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    @contextmanager
    def timed(self, busy: bool = False) -> Iterator[Callable[[], float]]:
        """Yield a function that returns the seconds of the block, on the device, after it.

        Args:
            busy: keep the device waiting while the first calls are launched, so that launching is not measured.
        """
        if not self.is_gpu:
            begin = time.perf_counter()
            yield lambda: end - begin
            end = time.perf_counter()
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if busy:
            torch.cuda._sleep(_CYCLES)
        first.record()
        yield lambda: first.elapsed_time(last) / 1e3
        last.record()
        last.synchronize()

    @contextmanager
    def slow_stream(self) -> Iterator[None]:
        """Make a stream current that is busy for some milliseconds, or on the CPU nothing."""
        if not self.is_gpu:
            yield
            return
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(_CYCLES)
            yield

    def seconds(self, *works: Work, busy: bool = False, rounds: int = 15, calls: int = 10) -> list[float]:
        """Return the median time of each work; they take turns, in rounds of some calls.

        Args:
            busy: for works that take longer on the device than on the host: measure the device alone.
        """
        times = self._warm(works)
        for _ in range(self.times(rounds)):
            for work, seconds in zip(works, times, strict=True):
                with self.timed(busy) as elapsed:
                    for _ in range(self.times(calls)):
                        work()
                seconds.append(elapsed() / self.times(calls))
        return [statistics.median(seconds) for seconds in times]

    def host_seconds(self, *works: Work) -> list[float]:
        """Return the median time that the host takes for each work: until it is launched, not until it has run.

        The works take turns. A round launches no more than the device's queue takes without waiting.
        """
        times = self._warm(works)
        for _ in range(self.times(41)):
            for work, seconds in zip(works, times, strict=True):
                self.wait()
                begin = time.perf_counter()
                for _ in range(self.times(50)):
                    work()
                seconds.append((time.perf_counter() - begin) / self.times(50))
        self.wait()
        return [statistics.median(seconds) for seconds in times]

    def launches(self, work: Work) -> int:
        """Count the kernels that a work runs on the device, copies included; on the CPU the operators."""
        self._warm([work])
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.is_gpu else [])]
        kind = torch.autograd.DeviceType.CUDA if self.is_gpu else torch.autograd.DeviceType.CPU
        with profile(activities=activities) as profiled:
            work()
            self.wait()
        return sum(event.device_type == kind and not event.is_user_annotation for event in profiled.events())

    def waits(self, work: Work) -> int:
        """Count the operations of a work that wait for the device, as torch names them; none on the CPU."""
        self._warm([work])
        if not self.is_gpu:
            return 0
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("called a synchronizing" in str(warning.message) for warning in caught)

    def peak_bytes(self, work: Work) -> int:
        """Return the most memory that tensors use while a work runs; 1 on the CPU, where torch does not count."""
        self._warm([work])
        if not self.is_gpu:
            return 1
        torch.cuda.reset_peak_memory_stats()
        work()
        self.wait()
        return torch.cuda.max_memory_allocated()

    def replayed(self, work: Work) -> Work:
        """Capture a work in a graph, and return the function that replays it; on the CPU the work itself."""
        if not self.is_gpu:
            return work
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._warm([work])
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay

    def _warm(self, works: Any) -> list[list[float]]:
        """Run each work three times, for what only first calls do; return an empty list for each."""
        for work in works:
            for _ in range(self.times(3)):
                work()
        self.wait()
        return [[] for _ in works]


def faster(case: str, ours: float, theirs: float, target: str = "") -> Row:
    """A row of two times, in seconds; its ratio says how many times faster dropkit is."""
    return Row(case, in_seconds(ours), in_seconds(theirs), theirs / ours, target)


def smaller(case: str, ours: float, theirs: float, target: str = "") -> Row:
    """A row of two numbers of bytes; its ratio says how many times less dropkit uses."""
    return Row(case, in_bytes(ours), in_bytes(theirs), theirs / ours, target)


def counted(case: str, number: float, theirs: object, target: str) -> Row:
    """A row whose ratio is the number itself."""
    return Row(case, f"{number:.4g}", str(theirs), number, target)


def different(case: str, pairs: Iterator[tuple[Tensor, Tensor]]) -> Row:
    """A row with the number of elements that are not equal in pairs of tensors, NaN being equal to NaN."""
    wrong = compared = 0
    for here, there in pairs:
        here, there = here.cpu(), there.cpu()
        wrong += int((~((here == there) | (here.isnan() & there.isnan()))).sum())
        compared += here.numel()
    return counted(case, wrong, f"of {compared}", "<= 0")


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
