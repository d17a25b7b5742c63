"""The parts of the benchmark of GPUs, in the order in which they run."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import click
import torch
from gpu import compiled, equality, speed
from gpu.device import Device
from record import GPU, HEAD, cells, keep, line
from side_by_side import Row, machine

from dropkit import kernels


class Part(NamedTuple):
    """Rows that answer one question.

    Attributes:
        rows: makes them; its docstring has the question, and what is compared.
        seconds: its share of the time, from an estimate for a large GPU and empty caches of compiled code.
    """

    rows: Callable[[Device], Iterator[Row]]
    seconds: float

    @property
    def name(self) -> str:
        return self.rows.__name__


PARTS = (
    Part(equality.masks, 45),
    Part(equality.values, 70),
    Part(equality.keys, 5),
    Part(equality.graphs, 5),
    Part(speed.launches, 10),
    Part(speed.host_time, 10),
    Part(speed.copies, 10),
    Part(speed.sizes, 30),
    Part(speed.noise, 15),
    Part(speed.fused, 40),
    Part(speed.drop_path, 15),
    Part(speed.batchwise, 25),
    Part(speed.batchwise_limits, 10),
    Part(speed.waits, 5),
    Part(speed.slices, 15),
    Part(compiled.fusion, 75),
    Part(compiled.transformer, 75),
    Part(equality.graphs_of_tensor_rates, 10),
)


def run(device: Device, parts: Iterable[Part], record: bool) -> None:
    """Run some parts, print and keep their rows as they come, and then print how long each part took.

    Each part must end by the time that is the sum of the shares so far: what one saves, the next ones may use.
    """
    where = described(device)
    click.echo(f"{where}\n\n{line(HEAD)}\n{line(['---'] * len(HEAD))}")
    begin, allowed = time.perf_counter(), 0.0
    measured: dict[str, list[Row]] = {}
    incomplete: list[str] = []
    durations: list[str] = []
    for part in parts:
        started = time.perf_counter()
        allowed += part.seconds
        rows: list[Row] = []
        try:
            if device.is_gpu:
                torch.cuda.empty_cache()  # fails, too, after an error of the device
            for row in _until(begin + allowed, part.rows(device)):
                click.echo(line(cells(row)))
                rows.append(row)
            measured[GPU + part.name] = rows
            if record:
                keep(where, {GPU + part.name: rows})
        except Exception as error:
            # The other parts are still worth having.
            incomplete.append(part.name)
            click.echo(line([f"{part.name} is incomplete: {type(error).__name__}, see the error output", *[""] * 5]))
            click.echo(f"{part.name}:\n{traceback.format_exc()}", err=True)
        durations.append(f"{part.name}: {time.perf_counter() - started:.1f} s of {part.seconds:g} s")
    missed = [row.case for rows in measured.values() for row in rows if row.met == "NO"]
    click.echo("\n" + "\n".join(durations))
    click.echo(f"total: {time.perf_counter() - begin:.1f} s of {allowed:g} s; targets missed: {len(missed)}")
    if incomplete:
        raise click.ClickException(f"incomplete: {', '.join(incomplete)}")


def _until(deadline: float, rows: Iterator[Row]) -> Iterator[Row]:
    """Pass rows on; raise TimeoutError at the first that was begun too late."""
    while time.perf_counter() <= deadline:
        try:
            yield next(rows)
        except StopIteration:
            return
    if next(rows, None) is not None:
        raise TimeoutError("no time is left for the rest of this part")


def described(device: Device) -> str:
    """The names of the device, of what runs on it, and of the machine."""
    kernel = kernels.kernel_for(device.type)
    name = torch.cuda.get_device_name() if device.is_gpu else device.type
    return f"{name}, kernel {kernel.name}: {kernel.detail()}; {machine()}"
