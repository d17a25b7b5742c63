"""Models for which it is hard to reuse results or to leave units out: they write into tensors and look at values."""

from __future__ import annotations

import random as python_random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)

    def start(self, x: Tensor) -> Tensor:
        return self.first(x.mean(1))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


class WritesAfterwards(Base):
    """Writes over what was computed before the first dropout after it."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        y = self.drop(h)
        h.mul_(2)
        return self.head(y + h)


class WritesAView(Base):
    """Writes through a view that was made before the first dropout."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        half = h[:, :4]
        y = self.drop(h)
        half.add_(1)
        return self.head(y + h)


class DropsInPlace(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        F.dropout(h, 0.5, self.training, inplace=True)
        return self.head(h)


class WritesItsInput(Base):
    """Writes into its input in each pass."""

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.9)
        return self.head(self.drop(self.start(x)))


class WritesABuffer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.head(self.drop(self.start(x) * self.passes))


class Random(Base):
    """Uses Python's random numbers before the first dropout."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.start(x) * self.generator.random()))

    def __init__(self) -> None:
        super().__init__()
        self.generator = python_random.Random(3)


class RandomWay(Random):
    """Makes random calls before the first dropout."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        for _ in range(self.generator.randrange(1, 4)):
            h = torch.tanh(h)
        return self.head(self.drop(h))


class LooksAtData(Base):
    """Branches on values, before and after the first dropout."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        if h.sum() > 0 or float(h[0, 0]) > 0.3:
            h = h + 1
        for _ in range(int(h.abs().mean().item()) + 1):
            h = self.second(h)
        y = self.drop(h)
        return self.head(y if y.sum() > 0 else self.drop(y))


class CalledTwice(Base):
    """Calls one module before the first dropout and after it."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x.mean(1)))
        return self.head(torch.relu(self.first(self.drop(h))) + self.first(self.drop(self.first(h))))


class WritesOverDeferredInput(Base):
    """Writes over the input of a linear layer that waits for the dropout behind it."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.start(x)) * 1.0
        y = self.second(h)
        h.zero_()
        return self.head(self.drop(y))


class UsesBoth(Base):
    """Uses a result dropped and whole, and writes into it after it was dropped."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.drop(self.start(x)))
        y = self.drop(F.gelu(h))
        h += 1
        z = y.clone()
        y.add_(1)
        return self.head(y + h + z)


class InPlace(Base):
    """Calls functions in place without using what they return, and functions that are not homogeneous."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.drop(self.start(x)))
        F.relu(h, inplace=True)
        h = self.drop(h)
        h.tanh_()
        y = self.second(F.gelu(self.drop(self.second(h))))
        torch.sigmoid_(y)
        return self.head(F.silu(self.drop(y)))


class Branches(Base):
    """Uses a dropped tensor in a layer and beside it, and writes into it meanwhile."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.start(x))
        y = self.second(h)
        h = h + 1
        z = self.drop(self.start(x))
        w = self.second(z)
        z.add_(1)
        return self.head(self.drop(y) + h + self.drop(w) + z)


class Cells(Base):
    """Drops in a loop, with states that are stacked and indexed."""

    def forward(self, x: Tensor) -> Tensor:
        h, states = x.new_zeros(len(x), 8), []
        for step in x.unbind(1):
            h = self.drop(torch.tanh(self.first(step) + self.second(h)))
            states.append(h)
        return self.head(torch.stack(states, 1)[:, -2:].mean(1))


class NoGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)


class BehindTheScenes(Base):
    """Computes with NumPy on a tensor that no function of torch returned."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        return self.head(self.drop(NoGrad.apply(torch.tanh(h)) + 1))


class Softmaxed(Base):
    """Calls functions of pruned tensors that have no rule."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.second(self.drop(self.start(x))))
        h = torch.cat([h.softmax(-1), h[:, :2], h.cumsum(1)], 1)
        h[:, 0] = 1.0
        return self.head(h.flip(0).flip(0)[:, 2:10] @ torch.eye(8))


class Grouped(nn.Module):
    """Convolutions with groups, strides and padding."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(5, 8, 3, padding=1, padding_mode="circular"), nn.Dropout1d(0.5), nn.Conv1d(8, 8, 3, groups=4)),
            *(nn.ELU(inplace=True), nn.Dropout1d(0.5), nn.Conv1d(8, 6, 3, stride=2, bias=False), nn.AvgPool1d(2)),
            *(nn.Dropout1d(0.3), nn.Flatten(), nn.Linear(6, 5)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


TRAPS = (
    DropsInPlace, LooksAtData, CalledTwice, UsesBoth, WritesOverDeferredInput, Branches, InPlace, Cells, Softmaxed,
    Grouped, WritesAfterwards,
)  # fmt: skip


class Mixing(Base):
    """Drops a tensor of pairs of inputs."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        return self.head(self.drop(h @ h.T).tanh() @ h)


class Noise(Base):
    """Adds noise that is no dropout, and is gated as dropout is."""

    def drop(self, x: Tensor) -> Tensor:
        return x * torch.randn_like(x).exp() if self.training and "dropout" else x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.start(x)))
