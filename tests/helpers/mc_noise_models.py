"""Models with random numbers in training mode that are no dropout; the line of each draw is marked "# here"."""

from __future__ import annotations

import random
from random import random as chance
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Has what the layers below use."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.linear, self.sigma, self.p = nn.Dropout(0.1), nn.Linear(8, 8), 0.1, 0.5
        self.register_parameter("weight", nn.Parameter(torch.ones(8)))


class Added(Block):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + torch.randn_like(x) * self.sigma  # here
        return self.drop(x)


class Chosen(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.randn_like(x) if self.training and self.sigma > 0 else x  # here
        return self.drop(x)


class Leaves(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        if not self.training or self.sigma == 0.0:
            return x
        noise = torch.empty_like(x).normal_(0, self.sigma)  # here
        return x + noise


class Named(Block):
    def forward(self, x: Tensor) -> Tensor:
        active = self.training and self.sigma
        return x + torch.normal(0.0, self.sigma, x.shape) if active else x  # here


class Skipped(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        if self.training and random.random() < self.p:  # here
            return x
        return x + self.linear(x)


class SkippedLast(Block):
    def forward(self, x: Tensor) -> Tensor:
        if chance() > self.p or not self.training:  # here
            x = x + self.linear(x)
        return self.drop(x)


class OfNumPy(Block):
    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        return x * self.rng.uniform(0.9, 1.1) if self.training else x  # here


class Mixed(Block):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            share = np.random.beta(1.0, 1.0)  # here
            x = share * x + (1 - share) * x.flip(0)
        return self.drop(x)


class ByGetattr(Block):
    def forward(self, x: Tensor) -> Tensor:
        if getattr(self, "training", False):
            x = x + torch.distributions.Normal(0.0, 1.0).sample(x.shape)  # here
        return self.drop(x)


class Helped(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        return self._jittered(x) if self.training else x

    def _jittered(self, x: Tensor) -> Tensor:
        return x + torch.randn(x.shape)  # here


class Inherits(Helped):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


def noised(x: Tensor, sigma: float, training: bool) -> Tensor:
    if not training:
        return x
    return x + sigma * torch.randn_like(x)  # gets the flag


class PassesTheFlag(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.drop(noised(x, self.sigma, training=self.training))


def shaken(module: Block, x: Tensor) -> Tensor:
    if module.training:
        x = x + torch.randn_like(x)  # gets the module
    return x


class PassesItself(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.drop(shaken(self, x))


class Rectified(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.drop(F.rrelu(x, 0.1, 0.3, self.training))  # here


class Gumbel(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        return F.gumbel_softmax(x) if self.training else x.softmax(-1)  # here


class Pooled(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        if self.training:
            return x[:, torch.randperm(8)[:4]]  # here
        return x[:, :4]


class Multiplied(Block):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.training * torch.randn_like(x)  # here


class DrawnBefore(Block):
    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn_like(x)  # here
        if self.training:
            x = x + noise
        return self.drop(x)


class Keeps(Block):
    """Keeps noise in an attribute that another method reads."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.noise = torch.randn_like(x)  # here
        return self._noisy(self.drop(x))

    def _noisy(self, x: Tensor) -> Tensor:
        return x + self.noise if self.training else x


class Writes(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        if self.training:
            x[:, : random.randrange(1, 4)] = 0  # here
        return x


class GaussianNoise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Child(Block):
    def __init__(self, child: nn.Module | None = None) -> None:
        super().__init__()
        self.child = child or GaussianNoise()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = self.child(x)  # here
        return self.drop(x)


class Listed(Block):
    def __init__(self) -> None:
        super().__init__()
        self.noises = nn.ModuleList([GaussianNoise()])

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            for noise in self.noises:
                x = noise(x)  # here
        return self.drop(x)


class First(Listed):
    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        return self.noises[0](x) if self.training else x  # here


class ByName(Block):
    def __init__(self) -> None:
        super().__init__()
        self.noises = nn.ModuleDict({"a": GaussianNoise()})

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        return self.noises["a"](x) if self.training else x  # here


class ByProperty(Block):
    @property
    def is_noisy(self) -> bool:
        """Whether noise is added."""
        return self.training and self.sigma > 0

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x + torch.randn_like(x) if self.is_noisy else x)  # here


class DefinedInside(Block):
    def forward(self, x: Tensor) -> Tensor:
        def noisy(y: Tensor) -> Tensor:
            return y + torch.randn_like(y)  # here

        x = noisy(x) if self.training else x
        return self.drop(x)


class OfADistribution(Block):
    def forward(self, x: Tensor) -> Tensor:
        q = torch.distributions.Normal(x, 0.1)
        x = q.sample() if self.training else q.mean  # here
        return self.drop(x)


class ImportedInside(Block):
    def forward(self, x: Tensor) -> Tensor:
        from random import random as number

        x = self.drop(x)
        return 2 * x if self.training and number() < self.p else x  # here


class Matched(Block):
    def forward(self, x: Tensor) -> Tensor:
        match self.training:
            case True:
                x = x + torch.randn_like(x)  # here
            case _:
                pass
        return self.linear(x)


NOISY = [
    Listed, First, ByName, ByProperty, DefinedInside, OfADistribution, ImportedInside, Matched,
    Added, Chosen, Leaves, Named, Skipped, SkippedLast, OfNumPy, Mixed, ByGetattr, Helped, Inherits, PassesTheFlag,
    PassesItself, Rectified, Gumbel, Pooled, Multiplied, DrawnBefore, Child, Keeps, Writes,
]  # fmt: skip


class Switched(Block):
    """Noise with a rate of 0, or that is switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.sigma, self.noise = 0.0, None

    def forward(self, x: Tensor) -> Tensor:
        if self.sigma and self.training:
            x = x + torch.randn_like(x)
        if self.training and self.noise is not None:
            x = x + torch.randn_like(x)
        if self.noise:
            x = noised(x, self.sigma, self.training)
        return self.drop(noised(x, 0.1, False))


class Always(Block):
    """Noise in both modes."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.sigma:
            x = x + torch.randn_like(x)
        return self.drop(noised(x, 0.1, True))


class Evaluates(Block):
    """The flag decides about other things, and noise is added in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = len(x)
        x = self.linear(x) if self.training else self.linear(x + torch.randn_like(x))
        return self.drop(x)


class Checkpointed(Block):
    """Calls the same layer in another way in training mode, as many libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(GaussianNoise(), nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            x = torch.utils.checkpoint.checkpoint(self.layer, x) if self.sigma else self.layer(x)
        else:
            x = self.layer(x)
        return x


class Overrides(Added):
    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x)

    def training_step(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


class Recursive(Block):
    """Calls itself with another number each time."""

    def forward(self, x: Tensor, level: int = 3) -> Tensor:
        return self.forward(x, level - 1) if level else self.drop(x if self.training is None else x + 1)


class Sampled(Block):
    """A method with the name of a random function."""

    def sample(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = self.sample(x)
        return self.drop(x)


class GaussianDropout(Block):
    """Dropout by its name, so that its flag is overridden."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 0.1 * torch.randn_like(x)) if self.training else x


class AuxiliaryHead(Block):
    """An auxiliary head with dropout, which is not called in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Sequential(nn.ReLU(), nn.Dropout1d(0.1)))

    def forward(self, x: Tensor) -> Any:
        y = self.drop(x)
        if self.training:
            return y, self.head(x)
        return y


class ForALoss(Block):
    """Random numbers that do not reach the output."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            rows = torch.randperm(len(x))[:2]
            distance = (x[rows] - x[:2]).pow(2)
            self.contrastive = distance.mean()
        return self.drop(x)


class Logs(Block):
    def forward(self, x: Tensor) -> Tensor:
        if self.training and random.random() < 0.01:
            print("mean", x.mean())
        return self.drop(x)


class MadeOnce(Block):
    def forward(self, x: Tensor) -> Tensor:
        if self.training and not hasattr(self, "buffer"):
            self.buffer = torch.randn(8)
        if self.training and not hasattr(self, "other"):
            self.register_buffer("other", torch.randn(8))
        return self.drop(x)


QUIET = [
    AuxiliaryHead,
    ForALoss,
    Logs,
    MadeOnce,
    Switched,
    Always,
    Evaluates,
    Checkpointed,
    Overrides,
    Sampled,
    Recursive,
    GaussianDropout,
    Block,
]
