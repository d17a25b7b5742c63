"""Does Monte Carlo dropout help? Compare error, likelihood, calibration and OOD detection with and without it.

The results are in docs/monte-carlo.md.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from helpers.torchvision_import import import_torchvision
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from dropkit import mc
from dropkit.mc.metrics import classification_report
from dropkit.studies import Setting, Sizes, place_dropout
from dropkit.studies.data import Examples, split
from dropkit.studies.digits import load
from dropkit.studies.networks import cnn, mlp

SEEDS = 5
TRAINING, EPOCHS, BATCH = 1000, 20, 50
SAMPLES = 50
HEAD = ("network", "prediction", "error", "nll", "ece", "overconfidence", "AUROC, OOD inputs")


def main() -> None:
    """Train all networks, predict with and without Monte Carlo dropout, and print a table."""
    import_torchvision()  # torchmetrics imports it
    digits, table = load(), Table(*HEAD)
    for network in (cnn, mlp):
        for p in (0.25, 0.5):
            runs: dict[str, list[tuple[float, ...]]] = {}
            for seed in range(SEEDS):
                parts = split(digits, Sizes(TRAINING, 1, None), torch.Generator().manual_seed(seed))
                for name, row in scores(train(network, p, seed, parts.training), parts.test).items():
                    runs.setdefault(name, []).append(row)
            for name, rows in runs.items():
                cells = (
                    f"{mean(column):.4f} +- {stdev(column) / SEEDS**0.5:.4f}" for column in zip(*rows, strict=True)
                )
                table.add_row(f"{network.__name__}, p = {p:g}", name, *cells)
    console = Console(width=160)
    console.print(f"torch {torch.__version__}")
    console.print(f"{TRAINING} training digits, {EPOCHS} epochs, {SEEDS} seeds: means and standard errors")
    console.print(table)


def train(
    network: Callable[[], nn.Module], p: float, seed: int, digits: Examples, kind: str = "dropout2d"
) -> nn.Module:
    """Return the trained network in eval mode."""
    torch.manual_seed(seed)
    model = place_dropout(network(), Setting(kind, p))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(digits)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(digits.inputs[batch]), digits.targets[batch]).backward()
            optimizer.step()
    return model.eval()


def scores(model: nn.Module, test: Examples) -> dict[str, tuple[float, ...]]:
    """Return the numbers of the table for both ways to predict."""
    results: dict[str, tuple[float, ...]] = {}
    for name, predict in (
        ("one pass, no dropout", predict_without_dropout),
        (f"mean of {SAMPLES} samples", predict_with_dropout),
    ):
        inside, outside = predict(model, test.inputs), predict(model, out_of_distribution(test.inputs))
        report = classification_report(inside, test.targets)
        auroc = inside.ood(outside, "entropy").auroc
        results[name] = report.error, report.nll, report.ece, report.overconfidence, auroc
    return results


def predict_with_dropout(model: nn.Module, images: Tensor) -> mc.ClassPrediction:
    """Return the mean over samples with dropout active."""
    return mc.predict(model, images, SAMPLES, masks="input", seed=0, batch_size=500)


def predict_without_dropout(model: nn.Module, images: Tensor) -> mc.ClassPrediction:
    """Return the usual prediction in eval mode, in the same form: one sample, with dropout inactive."""
    with torch.no_grad():
        p = torch.cat([model(batch).softmax(1) for batch in images.split(500)])
    return mc.from_samples(p.unsqueeze(0))


def out_of_distribution(images: Tensor) -> Tensor:
    """Rotate digits by 90 degrees and mirror them: the same strokes, but mostly no digits."""
    return images.rot90(1, (2, 3)).flip(3)


if __name__ == "__main__":
    main()
