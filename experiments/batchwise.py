"""Does dropout whose mask the batch shares regularise? Compare it with dropout by element and with none.

An MLP 784-1024-1024-10 is trained by SGD, without and with momentum, on 1,000 digits. One kind clips the norm of the
gradients.
The results are in docs/batchwise.md.
"""

from __future__ import annotations

import time
from statistics import mean, stdev
from typing import NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from scipy.stats import t
from torch import nn

from dropkit.nn import BatchwiseMLP
from dropkit.studies.data import Data, Sizes, split
from dropkit.studies.digits import load

SEEDS = 4
TRAINING, BATCH = 1000, 50
SIZES = (784, 1024, 1024, 10)
KINDS = ("none", "by element", "batchwise", "batchwise, clipped")
LARGEST_NORM = 1.0


class Setting(NamedTuple):
    """How networks are trained, and at which rate they drop."""

    momentum: float
    epochs: int
    learning_rate: float
    p: float


SETTINGS = (
    Setting(0.0, 60, 0.02, 0.5),
    Setting(0.0, 60, 0.05, 0.3),
    Setting(0.0, 60, 0.05, 0.5),
    Setting(0.0, 60, 0.1, 0.3),
    Setting(0.9, 30, 0.02, 0.5),
    Setting(0.9, 30, 0.05, 0.3),
    Setting(0.9, 30, 0.05, 0.5),
)


def main() -> None:
    """Train all networks and print a table of test errors, and of their changes against no dropout."""
    columns = ("momentum, epochs, learning rate, p", "dropout", "error, %", "change, 95 % interval", "seconds")
    digits, table = load(), Table(*columns)
    for setting in SETTINGS:
        runs = {kind: [run(kind, setting, seed, digits) for seed in range(SEEDS)] for kind in KINDS}
        for kind, results in runs.items():
            pairs = zip(results, runs["none"], strict=True)
            change = interval([error - without for (error, _), (without, _) in pairs])
            error, seconds = (mean(column) for column in zip(*results, strict=True))
            table.add_row(", ".join(map(str, setting)), kind, f"{error:.2f}", change, f"{seconds:.1f}")
    console = Console(width=120)
    console.print(f"{TRAINING} training digits, batch {BATCH}, {SEEDS} seeds")
    console.print(table)


def run(kind: str, setting: Setting, seed: int, digits: Data) -> tuple[float, float]:
    """The test error in per cent, and the seconds of training; runs of one seed have the same weights and data."""
    parts = split(digits, Sizes(TRAINING, 1, None), torch.Generator().manual_seed(seed))
    training, test = parts.training, parts.test
    torch.manual_seed(seed)
    batchwise = BatchwiseMLP(SIZES, setting.p if "batchwise" in kind else 0.0)
    order = torch.Generator().manual_seed(seed)
    model = with_dropout(batchwise, setting.p) if kind == "by element" else batchwise
    optimizer = torch.optim.SGD(model.parameters(), setting.learning_rate, setting.momentum)
    begin = time.perf_counter()
    for _ in range(setting.epochs):
        shuffled = torch.randperm(TRAINING, generator=order)
        for start in range(0, TRAINING, BATCH):
            batch = shuffled[start : start + BATCH]
            optimizer.zero_grad()
            F.cross_entropy(model(training.inputs[batch].flatten(1)), training.targets[batch]).backward()
            if "clipped" in kind:
                nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
            optimizer.step()
    seconds = time.perf_counter() - begin
    model.eval()
    with torch.no_grad():
        wrong = model(test.inputs.flatten(1)).argmax(1) != test.targets
    return 100 * wrong.double().mean().item(), seconds


def with_dropout(model: BatchwiseMLP, p: float) -> nn.Module:
    """The same layers with PyTorch's dropout."""
    first, second, last = model.layers
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(p), second, nn.ReLU(), nn.Dropout(p), last)


def interval(changes: list[float]) -> str:
    half = float(t.ppf(0.975, len(changes) - 1)) * stdev(changes) / len(changes) ** 0.5
    return f"{mean(changes):+.2f} +- {half:.2f}"


if __name__ == "__main__":
    main()
