"""Noise that a module draws in training mode alone stays off while one samples, and is reported."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from random import random as chance
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropkit import mc
from dropkit.mc.training_flag.other_noise import noise_left_off

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """With what the layers below want to have."""

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
    return x + sigma * torch.randn_like(x)  # handed the flag


class HandsTheFlag(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.drop(noised(x, self.sigma, training=self.training))


def shaken(module: Block, x: Tensor) -> Tensor:
    if module.training:
        x = x + torch.randn_like(x)  # handed the module
    return x


class HandsItself(Block):
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
    """In an attribute that another method reads."""

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
    Added, Chosen, Leaves, Named, Skipped, SkippedLast, OfNumPy, Mixed, ByGetattr, Helped, Inherits, HandsTheFlag,
    HandsItself, Rectified, Gumbel, Pooled, Multiplied, DrawnBefore, Child, Keeps, Writes,
]  # fmt: skip
SOURCE = Path(__file__).read_text().splitlines()


def line(kind: type[nn.Module]) -> int:
    """Where the class, or what it calls, is marked."""
    marks = {"HandsTheFlag": "# handed the flag", "HandsItself": "# handed the module"}
    kind = Helped if kind is Inherits else kind
    begin = 0 if kind.__name__ in marks else SOURCE.index(f"class {kind.__name__}({kind.__mro__[1].__name__}):")
    return next(i for i in range(begin, len(SOURCE)) if SOURCE[i].endswith(marks.get(kind.__name__, "# here"))) + 1


@pytest.mark.parametrize("kind", NOISY)
def test_noise_that_stays_off_is_noted(kind: type[nn.Module]) -> None:
    """With the class and the line, once, by `predict` as by `sampling`; the dropout beside it is sampled."""
    model = nn.Sequential(nn.Dropout(), kind(), kind()).eval()

    r = mc.predict(model, X, 5, "regression", seed=0, batch_size=4)
    with pytest.warns(UserWarning, match="stays off") as caught, mc.sampling():
        model(X)

    expected = (
        f"{kind.__name__} draws random numbers in training mode (test_mc_other_noise.py:{line(kind)}), which stays off"
    )
    assert [note.partition(" here:")[0] for note in r.notes if "stays off" in note] == [expected]
    assert [str(one.message).partition(" here:")[0] for one in caught] == [expected]
    assert caught[0].filename == __file__
    assert r.variance.amax() > 0


class Switched(Block):
    """Noise whose rate is 0, or that is switched off."""

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
    """Noise in both modes, which is drawn."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.sigma:
            x = x + torch.randn_like(x)
        return self.drop(noised(x, 0.1, True))


class Evaluates(Block):
    """The flag decides about other things, and draws are those of evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = len(x)
        x = self.linear(x) if self.training else self.linear(x + torch.randn_like(x))
        return self.drop(x)


class Checkpointed(Block):
    """As in many libraries: the same layer, called in another way in training mode."""

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
    """Calls itself, with another number each time."""

    def forward(self, x: Tensor, level: int = 3) -> Tensor:
        return self.forward(x, level - 1) if level else self.drop(x if self.training is None else x + 1)


class Sampled(Block):
    """Names that are no draws."""

    def sample(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = self.sample(x)
        return self.drop(x)


class GaussianDropout(Block):
    """Dropout, whose flag is up."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 0.1 * torch.randn_like(x)) if self.training else x


class AuxiliaryHead(Block):
    """Whose dropout is part of the head, which is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Sequential(nn.ReLU(), nn.Dropout1d(0.1)))

    def forward(self, x: Tensor) -> Any:
        y = self.drop(x)
        if self.training:
            return y, self.head(x)
        return y


class ForALoss(Block):
    """Draws that never reach the output."""

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


@pytest.mark.parametrize("kind", QUIET)
def test_what_does_not_stay_off_is_not_noted(kind: type[nn.Module]) -> None:
    """Noise of no strength, noise of both modes, other uses of the flag, what is not called, and dropout."""
    model = nn.Sequential(kind() if kind is not Block else nn.Linear(8, 8), nn.Dropout()).eval()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with mc.sampling():
            model(X)

    assert not [note for note in mc.predict(model, X, 3, "regression").notes if "stays off" in note]


@pytest.mark.parametrize("child", [nn.Dropout(0.1), nn.Sequential(GaussianNoise()), nn.Linear(8, 8)])
def test_a_module_that_is_left_out_is_noted_if_it_draws(child: nn.Module) -> None:
    """The flag of the module around it decides, and stays down."""
    assert len(noise_left_off(Child(child))) == (not isinstance(child, nn.Linear))


def test_hooks_and_a_forward_of_its_own_are_read() -> None:
    """They run with the module, and are handed it."""

    def hook(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
        return (args[0] + torch.randn_like(args[0]),) if module.training else None

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x

    hooked, patched = nn.Linear(8, 8), nn.Linear(8, 8)
    hooked.register_forward_pre_hook(hook)
    patched.forward = MethodType(forward, patched)

    assert len(noise_left_off(hooked)) == len(noise_left_off(patched)) == 1


def test_noise_without_dropout_is_named_where_there_is_nothing_to_sample() -> None:
    """Who expected it to be sampled reads why it was not."""
    model = nn.Sequential(Child(nn.RReLU()), nn.RReLU()).eval()
    model[0].drop = nn.Identity()

    for sample in (lambda: mc.predict(model, X), lambda: sampled(model)):
        with pytest.raises(mc.NothingToSample, match="Child draws random numbers") as error:
            sample()
        assert re.search(r"RReLU draws random numbers in training mode \(activation.py:\d+\)", str(error.value))


def sampled(model: Callable[[Tensor], Any]) -> None:
    with mc.sampling():
        model(X)


def test_a_class_without_source_is_passed_over() -> None:
    """What cannot be read is not guessed at."""
    names: dict[str, Any] = {}
    exec(
        "class Made(nn.Module):\n    def forward(self, x):\n        return x if self.training else x", globals(), names
    )

    assert noise_left_off(names["Made"]()) == []


class Branch(Block):
    """Stochastic depth by hand, which is dropout, by numbers that torch does not draw."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        drops = self.training and self.draw() < self.p
        return x if drops else x + self.linear(x)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_draws_of_python_follow_the_seed(draw: Callable[[], float], alone: bool) -> None:
    """Where they are part of the dropout; a note says that they know no inputs. Their generators are left alone."""
    branch = Branch(draw)
    model = (branch if alone else nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.01), branch)).eval()
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()

    r, again, other = (mc.predict(model, X, 20, "regression", seed=seed, keep_samples=True) for seed in (0, 0, 1))

    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert torch.equal(r.draws, again.draws)
    assert not torch.equal(r.draws, other.draws)
    assert r.draws.flatten(1).var(0).amax() > 1e-3
    assert any("generators of Python or NumPy" in note for note in r.notes)
    sampled(model)


def test_models_of_libraries_have_no_notes(torchvision: Any) -> None:
    """Nor has their dropout, nor what they do in training mode besides, such as auxiliary heads."""
    with torch.device("meta"):
        models = [
            torchvision.models.resnet18(),
            torchvision.models.googlenet(aux_logits=True, init_weights=False),
            torchvision.models.VisionTransformer(16, 8, 1, 2, 8, 8, dropout=0.1),
            torchvision.models.densenet121(drop_rate=0.1),
        ]

    assert [note for model in models for module in model.modules() for note in noise_left_off(module)] == []
