"""Does Monte Carlo dropout help? Error, likelihood, calibration and detection of strangers, with it and without."""

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
from dropkit.mc.metrics import class_quality
from dropkit.study.arms import DROPKIT, Arm
from dropkit.study.digits import Digits, load, split
from dropkit.study.networks import cnn, mlp

SEEDS = 5
TRAINING, EPOCHS, BATCH = 1000, 20, 50
HEAD = ("network", "prediction", "error", "nll", "ece", "overconfidence", "AUROC of strangers")


def trained(network: Callable[[Arm], nn.Module], p: float, seed: int, digits: Digits) -> nn.Module:
    torch.manual_seed(seed)
    model = network(Arm(DROPKIT, p))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(digits)).split(BATCH):
            optimizer.zero_grad()
            F.nll_loss(model(digits.images[batch]), digits.labels[batch]).backward()
            optimizer.step()
    return model.eval()


def strangers(images: Tensor) -> Tensor:
    """Digits turned by a quarter and mirrored: ink of the same kind that is mostly no digit."""
    return images.rot90(1, (2, 3)).flip(3)


def once(model: nn.Module, images: Tensor) -> mc.ClassPrediction:
    """The usual prediction in evaluation mode, in the same form: one sample of a model whose dropout does nothing."""
    with torch.no_grad():
        p = torch.cat([model(part).exp() for part in images.split(500)])
    return mc.from_samples(p.unsqueeze(0))


def numbers(model: nn.Module, test: Digits) -> dict[str, tuple[float, ...]]:
    """For each way to predict, the numbers of the table."""
    found: dict[str, tuple[float, ...]] = {}
    for name, predicted, by in (
        ("one pass, no dropout", once, "entropy"),
        ("mean of 50 samples", lambda *given: mc.predict(*given, masks="input", seed=0, batch_size=500), "entropy"),
    ):
        inside, outside = predicted(model, test.images), predicted(model, strangers(test.images))
        quality = class_quality(inside, test.labels)
        found[name] = quality.error, quality.nll, quality.ece, quality.overconfidence, inside.ood(outside, by).auroc
    return found


def main() -> None:
    import_torchvision()  # torchmetrics imports it
    digits, rows = load(), Table(*HEAD)
    for network in (cnn, mlp):
        for p in (0.25, 0.5):
            runs: dict[str, list[tuple[float, ...]]] = {}
            for seed in range(SEEDS):
                train, test = split(digits, TRAINING, torch.Generator().manual_seed(seed))
                for name, one in numbers(trained(network, p, seed, train), test).items():
                    runs.setdefault(name, []).append(one)
            for name, values in runs.items():
                cells = (
                    f"{mean(column):.4f} +- {stdev(column) / SEEDS**0.5:.4f}" for column in zip(*values, strict=True)
                )
                rows.add_row(f"{network.__name__}, p = {p:g}", name, *cells)
    console = Console(width=160)
    console.print(f"torch {torch.__version__}")
    console.print(f"{TRAINING} digits to train on, {EPOCHS} epochs, {SEEDS} seeds: means and standard errors")
    console.print(rows)


if __name__ == "__main__":
    main()
