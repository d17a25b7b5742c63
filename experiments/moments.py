"""How well does one pass of moment propagation replace samples? Compare both with many samples of trained networks.

The results are in docs/monte-carlo.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import mean, stdev

import torch
from calibration import import_torchvision, out_of_distribution, train
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from dropkit import mc
from dropkit.mc.metrics import classification_report
from dropkit.studies import Sizes
from dropkit.studies.data import Examples, split
from dropkit.studies.digits import load
from dropkit.studies.networks import cnn, mlp

SEEDS = 3
TRAINING, TESTED = 1000, 1000
SAMPLES, REFERENCE = 50, 200
NETWORKS = (
    (mlp, "dropout", 0.25),
    (mlp, "dropout", 0.5),
    (cnn, "dropout", 0.25),
    (cnn, "dropout", 0.5),
    (cnn, "dropout2d", 0.5),
)
HEAD = ("network", "prediction", "spread of logits", "mutual information", "correlation", "nll", "ece", "AUROC, OOD")

Predict = Callable[[nn.Module, Tensor], mc.ClassPrediction]


def main() -> None:
    """Train all networks, predict by samples and by one pass, and print a table."""
    import_torchvision()  # torchmetrics imports it
    digits, table = load(), Table(*HEAD)
    for network, kind, p in NETWORKS:
        runs: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(SEEDS):
            parts = split(digits, Sizes(TRAINING, 1, None), torch.Generator().manual_seed(seed))
            model = train(network, p, seed, parts.training, kind)
            test = replace(parts.test, inputs=parts.test.inputs[:TESTED], targets=parts.test.targets[:TESTED])
            for name, row in scores(model, test).items():
                runs.setdefault(name, []).append(row)
        for name, rows in runs.items():
            cells = (f"{mean(column):.3f} +- {stdev(column) / SEEDS**0.5:.3f}" for column in zip(*rows, strict=True))
            table.add_row(f"{network.__name__}, {kind}, p = {p:g}", name, *cells)
    console = Console(width=200)
    console.print(f"torch {torch.__version__}")
    console.print(
        f"{TRAINING} training digits, {SEEDS} seeds: means and standard errors; spread, mutual information and its "
        f"correlation beside {REFERENCE} other samples"
    )
    console.print(table)


def scores(model: nn.Module, test: Examples) -> dict[str, tuple[float, ...]]:
    """Return the numbers of the table for both ways to predict."""
    reference = by_samples(model, test.inputs, REFERENCE, seed=1)
    logits = mc.predict(model, test.inputs, REFERENCE, "regression", seed=1, plain=False)
    spreads = {
        "samples": mc.predict(model, test.inputs, SAMPLES, "regression", seed=0, plain=False).std,
        "one pass": mc.propagate(model, test.inputs, task="regression", plain=False).std,
    }
    ways: dict[str, Predict] = {
        "samples": lambda model, x: by_samples(model, x, SAMPLES, seed=0),
        "one pass": lambda model, x: mc.propagate(model, x, seed=0, plain=False),
    }
    results: dict[str, tuple[float, ...]] = {}
    for name, predict in ways.items():
        inside, outside = predict(model, test.inputs), predict(model, out_of_distribution(test.inputs))
        report = classification_report(inside, test.targets)
        information = torch.stack([inside.mutual_information, reference.mutual_information])
        results[name] = (
            (spreads[name] / logits.std).median().item(),
            (information[0].mean() / information[1].mean()).item(),
            torch.corrcoef(information)[0, 1].item(),
            report.nll,
            report.ece,
            inside.ood(outside, "entropy").auroc,
        )
    return results


def by_samples(model: nn.Module, images: Tensor, samples: int, seed: int) -> mc.ClassPrediction:
    """Return the mean over samples with dropout active."""
    return mc.predict(model, images, samples, masks="input", seed=seed, measures="basic", plain=False, batch_size=500)


if __name__ == "__main__":
    main()
