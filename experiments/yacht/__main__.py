"""Reproduce the published error and log-likelihood of Monte Carlo dropout on the UCI yacht data.

Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning", ICML
2016, arXiv:1506.02142; the setting and the numbers are those of 2018 in the paper's repository, see README.md.

All networks of a run are trained as one stack of networks, by batched matrix products. They share no weight, no mask
element and no minibatch, and Adam updates each element on its own, so each network is trained as it would be alone.
Twenty in a stack take an eighth of the time.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypeVar

import click
import numpy
import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from dropkit import mc, random
from dropkit.functional import dropout
from dropkit.nn import Dropout

HIDDEN = 50
EPOCHS = 4000
BATCH = 128
LENGTHSCALE = 1e-2
P = 0.005
TAUS = (0.25, 0.5, 0.75)
PASSES = 10_000
# Enough to choose tau: another seed moves a log-likelihood by at most 0.013, and the candidates differ by 0.1 to 0.3.
VALIDATION_PASSES = 1000
SPLITS = 20
# Mean and standard error over the splits: first of the RMSE, then of the log-likelihood.
PUBLISHED = ((0.67, 0.05), (-1.25, 0.01))

Step = TypeVar("Step")


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of one network on its test set.

    Attributes:
        standard: RMSE of one pass without dropout.
        rmse: RMSE of the mean over passes with dropout.
        log_likelihood: mean log-likelihood, in nats per input.
    """

    standard: float
    rmse: float
    log_likelihood: float


class Network(nn.Module):
    """A trained network from inputs (rows, features) to targets (rows,), in original units; computes in float32.

    Args:
        layers: the layers, which work on scaled data.
        input_mean, input_scale: mean and standard deviation of the training inputs, (1, features).
        target_mean, target_scale: the same of the training targets, (1,).
    """

    def __init__(
        self,
        layers: nn.Sequential,
        input_mean: Tensor,
        input_scale: Tensor,
        target_mean: Tensor,
        target_scale: Tensor,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.input_mean, self.input_scale = nn.Buffer(input_mean), nn.Buffer(input_scale)
        self.target_mean, self.target_scale = nn.Buffer(target_mean), nn.Buffer(target_scale)

    def forward(self, inputs: Tensor) -> Tensor:
        scaled = ((inputs - self.input_mean) / self.input_scale).float()
        return self.layers(scaled).squeeze(-1) * self.target_scale + self.target_mean


@click.command()
@click.option("--passes", type=click.IntRange(1), default=PASSES, show_default=True, help="Forward passes per input.")
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, show_default=True, help="Training epochs.")
@click.option(
    "--splits",
    type=click.IntRange(1, SPLITS),
    default=SPLITS,
    show_default=True,
    help="Number of splits, from the first.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the training.")
def main(passes: int, epochs: int, splits: int, seed: int) -> None:
    """Train on the published splits, predict with dropout active, and print a table in Markdown."""
    begin = time.perf_counter()
    taus, scores = run(passes, epochs, splits, seed)
    console = Console()
    console.print(as_table(taus, scores))
    # A paired difference: the variation between splits is common to both and cancels.
    gain, error = mean_and_error([score.rmse - score.standard for score in scores])
    console.print(f"RMSE, Monte Carlo less standard: {gain:.3f} ± {error:.3f}")
    console.print(f"{splits} splits, {epochs} epochs, {passes} passes: {time.perf_counter() - begin:.0f} seconds")


def run(passes: int, epochs: int, splits: int, seed: int) -> tuple[list[float], list[Score]]:
    """Choose tau for each split, train on the whole training set, and score on the test set."""
    inputs, targets = load()
    training, test = (rows[:splits] for rows in published_splits(len(targets)))
    taus = choose_taus(inputs[training], targets[training], min(passes, VALIDATION_PASSES), epochs, seed)
    networks = train(inputs[training], targets[training], taus, epochs, seed)
    tasks = list(zip(networks, test, taus.tolist(), strict=True))
    scores = [
        evaluate(network, inputs[rows], targets[rows], tau, passes, split)
        for split, (network, rows, tau) in enumerate(with_progress(tasks, "predicting"))
    ]
    return taus.tolist(), scores


def load() -> tuple[Tensor, Tensor]:
    """Return inputs (rows, features) and targets (rows,) in float64; the last column of the file is the target."""
    table = torch.from_numpy(numpy.loadtxt(Path(__file__).with_name("yacht.csv"), delimiter=",", skiprows=1))
    return table[:, :-1], table[:, -1]


def published_splits(rows: int) -> tuple[Tensor, Tensor]:
    """Return the indices of training and test rows, (SPLITS, 90 %) and (SPLITS, 10 %)."""
    generator = numpy.random.RandomState(1)
    orders = torch.from_numpy(numpy.stack([generator.permutation(rows) for _ in range(SPLITS)]))
    border = round(0.9 * rows)
    return orders[:, :border], orders[:, border:]


def choose_taus(inputs: Tensor, targets: Tensor, passes: int, epochs: int, seed: int) -> Tensor:
    """Return the tau of each split that has the highest likelihood on its last fifth, after training on the others."""
    border = int(0.8 * inputs.shape[1])
    likelihoods: list[list[float]] = []
    for tau in TAUS:
        taus = torch.full((len(inputs),), tau, dtype=inputs.dtype)
        networks = train(inputs[:, :border], targets[:, :border], taus, epochs, seed)
        validation = list(zip(networks, inputs[:, border:], targets[:, border:], strict=True))
        likelihoods.append(
            [
                evaluate(*task, tau, passes, split).log_likelihood
                for split, task in enumerate(with_progress(validation, f"validating tau {tau}"))
            ]
        )
    return torch.tensor(TAUS, dtype=inputs.dtype)[torch.tensor(likelihoods).argmax(0)]


def evaluate(network: Network, inputs: Tensor, targets: Tensor, tau: float, passes: int, seed: int) -> Score:
    """Score a network on inputs (rows, features) and targets (rows,), in original units."""
    prediction = mc.predict(network, inputs, passes, task="regression", seed=seed, keep_samples=True, progress=False)
    report = prediction.report(targets, tau)
    with torch.no_grad():
        standard = (network.eval()(inputs) - targets).square().mean().sqrt().item()
    return Score(standard, report.rmse, report.log_likelihood)


def train(inputs: Tensor, targets: Tensor, taus: Tensor, epochs: int, seed: int) -> list[Network]:
    """Train one network for each training set, in original units.

    Args:
        inputs: (networks, rows, features).
        targets: (networks, rows).
        taus: (networks,); precision of the observation noise, which determines the weight decay.
        epochs: training epochs.
        seed: seed of weights, orders and masks.
    """
    input_scale, input_mean = torch.std_mean(inputs, 1, correction=0, keepdim=True)
    target_scale, target_mean = torch.std_mean(targets, 1, correction=0, keepdim=True)
    scaled = (inputs - input_mean) / input_scale, (targets - target_mean) / target_scale
    decay = LENGTHSCALE**2 * (1 - P) / (2 * inputs.shape[1] * taus)
    weights = fit(*(part.float() for part in (*scaled, decay)), epochs, seed)
    scaling = input_mean, input_scale, target_mean, target_scale
    return [
        Network(unstacked([weight[i] for weight in weights]), *(part[i] for part in scaling))
        for i in range(len(inputs))
    ]


def fit(inputs: Tensor, targets: Tensor, decay: Tensor, epochs: int, seed: int) -> list[Tensor]:
    """Train a stack of networks on scaled data, and return its weights and biases.

    The randomness of network i depends on `seed` and i, and not on the number of networks: weights and orders come from
    its own generator, and a mask element follows from the key of the mask and the position in the stack.
    """
    networks, rows, features = inputs.shape
    generators = [torch.Generator().manual_seed(key) for key in random.split(seed, networks).tolist()]
    masks = torch.Generator().manual_seed(seed)
    weights = initial(generators, features, inputs.dtype)
    # Keras, which trained the published networks, has eps=1e-7.
    optimizer = torch.optim.Adam(weights, eps=1e-7, fused=True)
    network = torch.arange(networks).unsqueeze(1)
    for _ in with_progress(range(epochs), f"training {networks} networks"):
        order = torch.stack([torch.randperm(rows, generator=generator) for generator in generators])
        for batch in order.split(BATCH, dim=1):
            error = (forward(weights, inputs[network, batch], masks) - targets[network, batch]).square().mean(1)
            penalty = weights[0].square().sum((1, 2)) + weights[2].square().sum((1, 2))
            optimizer.zero_grad()
            (error + decay * penalty).sum().backward()
            optimizer.step()
    return [weight.detach() for weight in weights]


def initial(generators: list[torch.Generator], features: int, dtype: torch.dtype) -> list[Tensor]:
    """Return weights by Glorot's uniform rule and biases of zero, for one network per generator."""
    weights: list[Tensor] = []
    for inputs, outputs in ((features, HIDDEN), (HIDDEN, 1)):
        bound = math.sqrt(6 / (inputs + outputs))
        uniform = [torch.empty(inputs, outputs, dtype=dtype).uniform_(-bound, bound, generator=g) for g in generators]
        weights += [torch.stack(uniform), torch.zeros(len(generators), 1, outputs, dtype=dtype)]
    return [weight.requires_grad_() for weight in weights]


def forward(weights: list[Tensor], inputs: Tensor, masks: torch.Generator) -> Tensor:
    """Return the outputs of all networks of the stack, (networks, rows), in training mode."""
    first, first_bias, second, second_bias = weights
    hidden = torch.baddbmm(first_bias, dropout(inputs, P, generator=masks), first).relu()
    return torch.baddbmm(second_bias, dropout(hidden, P, generator=masks), second).squeeze(-1)


def unstacked(weights: list[Tensor]) -> nn.Sequential:
    """Return the layers of one network, from its part of the stack's weights."""
    first, first_bias, second, second_bias = weights
    linear = [nn.Linear(*weight.shape, dtype=weight.dtype) for weight in (first, second)]
    layers = nn.Sequential(Dropout(P), linear[0], nn.ReLU(), Dropout(P), linear[1])
    layers.load_state_dict(
        {"1.weight": first.T, "1.bias": first_bias[0], "4.weight": second.T, "4.bias": second_bias[0]}
    )
    return layers


def as_table(taus: list[float], scores: list[Score]) -> Table:
    table = Table("split", "tau", "RMSE, standard", "RMSE, Monte Carlo", "log-likelihood", box=box.MARKDOWN)
    for split, (tau, score) in enumerate(zip(taus, scores, strict=True)):
        table.add_row(str(split), f"{tau:.2f}", *(f"{value:.3f}" for value in astuple(score)))
    means = [mean_and_error(column) for column in zip(*map(astuple, scores), strict=True)]
    table.add_row("mean", "", *(f"{mean:.3f} ± {error:.3f}" for mean, error in means))
    table.add_row("published", "", "", *(f"{mean:.2f} ± {error:.2f}" for mean, error in PUBLISHED))
    return table


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over splits and its standard error; as published, the variance is divided by n, not n - 1."""
    return statistics.fmean(values), statistics.pstdev(values) / math.sqrt(len(values))


def with_progress(steps: Iterable[Step], description: str) -> Iterable[Step]:
    """Iterate over `steps`, with a progress bar on standard error if that is a terminal."""
    return track(steps, description, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


if __name__ == "__main__":
    torch.set_num_threads(1)  # more threads are slower on such small matrices
    main()
