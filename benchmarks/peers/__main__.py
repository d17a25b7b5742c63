"""Monte Carlo dropout side by side with other packages, each form in processes of its own, in turn.

`make peers` installs them into an environment of their own and runs this. Prints one table in Markdown.
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
    """A transformer encoder with dropout in its head alone."""

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
    """A model, its inputs, and how many samples; batches that forms may choose among, and those that run samples at
    once: few inputs of many samples.
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


# Seconds that a form is measured for, at least.
ENOUGH = 1.0


def measured(work: Work, form: str, batch: int) -> tuple[float, float]:
    """Seconds of one call, and the peak of memory above what there was before, in bytes."""
    torch.manual_seed(0)
    model, inputs = work.model().eval(), torch.randn(work.inputs, *work.shape)
    run: Form = FORMS.get(form, plain)
    # Imports, and what is made once; of few inputs, so that the peak is that of the call.
    run(model, inputs[:2], 2, 2)
    Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    taken: list[float] = []
    # A call of a tenth of a second is repeated, so that what is fast is not measured by its first touch of memory.
    while sum(taken) < ENOUGH:
        begin = time.perf_counter()
        run(model, inputs, work.samples, batch)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken), peak() - before


def peak() -> int:
    """The most memory that the process had since its peak was reset, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@torch.no_grad()
def plain(model: nn.Module, inputs: Tensor, samples: int, batch: int) -> Result:
    """The model's own forward pass, once, whose memory is the measure of ours."""
    return by_batch(lambda x: measures(model(x).unsqueeze(0)), inputs, batch)


def apart(*args: Any) -> tuple[float, float] | None:
    """In a process of its own; None where the package fails, which is said."""
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
    found = ours.recv()
    process.join()
    return found


def best_batch(work: Work, form: str) -> int | None:
    """The fastest of one run each."""
    batches = work.few if form.endswith("at once") else work.batches
    tried = {batch: apart(work, form, batch) for batch in batches}
    good = {batch: found[0] for batch, found in tried.items() if found is not None}
    return min(good, key=good.__getitem__) if good else None


def compared(work: Work, rounds: int, forms: tuple[str, ...]) -> list[tuple[str, ...]]:
    batches = {form: best_batch(work, form) for form in forms}
    runs: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    for _ in range(rounds):
        for form, batch in batches.items():
            found = apart(work, form, batch) if batch is not None else None
            if found is not None:
                runs[form].append(found)
    seconds = {form: statistics.median(one for one, _ in found) for form, found in runs.items() if found}
    best = min((form for form in PEERS if form in seconds), key=seconds.__getitem__)
    rows: list[tuple[str, ...]] = []
    for form, taken in seconds.items():
        memory = statistics.median(one for _, one in runs[form])
        forward = apart(work, "forward", batches[form])
        more = f"{memory / forward[1]:.2f}" if form in OURS and forward is not None else ""
        faster = f"{seconds[best] / taken:.2f}" if form in OURS else ""
        numbers = (f"{taken:.3f}", f"{seconds[NAIVE] / taken:.2f}", faster, f"{memory / 1e6:.0f}", more)
        rows.append((work.name, form, str(batches[form]), *numbers))
    return rows


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--only", type=click.IntRange(min=0, max=len(WORKS) - 1), multiple=True, help="The place of a work in the list."
)
@click.option("--form", "forms", type=click.Choice(list(FORMS)), multiple=True, help="These alone, and the naive loop.")
def main(rounds: int, only: tuple[int, ...], forms: tuple[str, ...]) -> None:
    """Seconds, and how many times as fast as the naive loop and as the best of the other packages."""
    head = ("work", "form", "batch", "seconds", "x naive", "x best peer", "peak MB", "x forward")
    click.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    click.echo(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for place, work in enumerate(WORKS):
        if not only or place in only:
            for row in compared(work, rounds, tuple(dict.fromkeys((*OURS, NAIVE, *(forms or PEERS))))):
                click.echo(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
