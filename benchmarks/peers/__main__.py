"""Compare the speed and memory of Monte Carlo dropout in dropkit and in other packages; print a table in Markdown.

`make peers` installs them into an environment of their own and runs this. Every measurement has a process of its own,
and the packages take turns.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import torch
from forms import FORMS, NAIVE, OURS, PEERS, Form, Result, by_batch, measures
from torch import Tensor, nn


class Encoder(nn.Module):
    """A transformer encoder with dropout only in its head."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(
        *(nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(512, 10),
    )


def cnn() -> nn.Module:
    """The digit network of PyTorch's examples, with dropout after the last pooling and before the last layer."""
    return nn.Sequential(
        *(nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10)),
    )


@dataclass(frozen=True, slots=True)
class Work:
    """A model with its inputs.

    Attributes:
        name: what the table calls it.
        model: makes the model.
        shape: shape of one input.
        inputs, samples: how many of each.
        batches: batch sizes to choose from; each form takes its fastest.
        few: the same for forms that run all samples of a batch at once, which need more memory per input.
    """

    name: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    inputs: int
    samples: int
    batches: tuple[int, ...]
    few: tuple[int, ...]


WORKS = (
    Work("MLP 784-512-512-10", mlp, (784,), 10_000, 50, (256, 1000, 2048), (4, 10, 40)),
    Work("digit CNN", cnn, (1, 28, 28), 1000, 50, (100, 500, 1000), (1, 2, 10)),
    Work("encoder, dropout in its head", Encoder, (64, 128), 256, 20, (8, 32, 256), (1, 2, 8)),
)


# Shortest measurement, in seconds.
ENOUGH = 1.0


def measured(work: Work, form: str, batch: int) -> tuple[float, float]:
    """Return the median seconds of a call, and its peak memory in bytes above what the process used before."""
    torch.manual_seed(0)
    model, inputs = work.model().eval(), torch.randn(work.inputs, *work.shape)
    run: Form = FORMS.get(form, plain)
    # Warm up with few inputs, so that imports and one-time work are not measured and the peak is that of the call.
    run(model, inputs[:2], 2, 2)
    Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    times: list[float] = []
    # Short calls are repeated: otherwise the first touch of memory would dominate their time.
    while sum(times) < ENOUGH:
        begin = time.perf_counter()
        run(model, inputs, work.samples, batch)
        times.append(time.perf_counter() - begin)
    return statistics.median(times), peak() - before


def peak() -> int:
    """Return the largest memory of the process since its peak was reset, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@torch.no_grad()
def plain(model: nn.Module, inputs: Tensor, samples: int, batch: int) -> Result:
    """Run the model's own forward pass once; the table gives dropkit's memory as a multiple of its memory."""
    return by_batch(lambda x: measures(model(x).unsqueeze(0)), inputs, batch)


def measured_in_a_process(*args: Any) -> tuple[float, float] | None:
    """Call `measured` in a process of its own; return None and print the error if the package fails."""
    ours, theirs = multiprocessing.Pipe()

    def work() -> None:
        warnings.simplefilter("ignore")
        try:
            theirs.send(measured(*args))
        except Exception as error:
            click.echo(f"{args[1]}: {type(error).__name__}: {error}", err=True)
            theirs.send(None)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    measurement = ours.recv()
    process.join()
    return measurement


def best_batch(work: Work, form: str) -> int | None:
    """Return the batch size that is fastest in one run, or None if the package fails with all of them."""
    batches = work.few if form.endswith("at once") else work.batches
    measurements = {batch: measured_in_a_process(work, form, batch) for batch in batches}
    seconds = {batch: measurement[0] for batch, measurement in measurements.items() if measurement is not None}
    return min(seconds, key=seconds.__getitem__) if seconds else None


def compared(work: Work, rounds: int, forms: tuple[str, ...]) -> list[tuple[str, ...]]:
    batches = {form: best_batch(work, form) for form in forms}
    runs: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    for _ in range(rounds):
        for form, batch in batches.items():
            measurement = measured_in_a_process(work, form, batch) if batch is not None else None
            if measurement is not None:
                runs[form].append(measurement)
    seconds = {form: statistics.median(run[0] for run in measured) for form, measured in runs.items() if measured}
    best = min((form for form in PEERS if form in seconds), key=seconds.__getitem__)
    rows: list[tuple[str, ...]] = []
    for form, time_taken in seconds.items():
        memory = statistics.median(run[1] for run in runs[form])
        forward = measured_in_a_process(work, "forward", batches[form])
        more = f"{memory / forward[1]:.2f}" if form in OURS and forward is not None else ""
        faster = f"{seconds[best] / time_taken:.2f}" if form in OURS else ""
        numbers = (f"{time_taken:.3f}", f"{seconds[NAIVE] / time_taken:.2f}", faster, f"{memory / 1e6:.0f}", more)
        rows.append((work.name, form, str(batches[form]), *numbers))
    return rows


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Measurements per form.")
@click.option(
    "--only",
    type=click.IntRange(min=0, max=len(WORKS) - 1),
    multiple=True,
    help="Index of a model; all by default.",
)
@click.option("--form", "forms", type=click.Choice(list(FORMS)), multiple=True, help="Other packages to measure.")
def main(rounds: int, only: tuple[int, ...], forms: tuple[str, ...]) -> None:
    """Print seconds and memory, and how many times faster than the naive loop and than the best other package."""
    head = ("work", "form", "batch", "seconds", "x naive", "x best peer", "peak MB", "x forward")
    click.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    click.echo(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for index, work in enumerate(WORKS):
        if not only or index in only:
            for row in compared(work, rounds, tuple(dict.fromkeys((*OURS, NAIVE, *(forms or PEERS))))):
                click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
