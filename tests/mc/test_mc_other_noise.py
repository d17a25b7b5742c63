"""Noise that a module draws in training mode alone stays off in sampling, and is reported."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import mc_noise_models
from helpers.mc_noise_models import NOISY, QUIET, Block, Child, GaussianNoise, Helped, Inherits
from torch import Tensor, nn

from dropkit import mc
from dropkit.mc.training_flag.other_noise import noise_left_off

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


SOURCE = Path(mc_noise_models.__file__).read_text().splitlines()


def line(kind: type[nn.Module]) -> int:
    """The line that is marked in a class, or in the function that it calls."""
    marks = {"PassesTheFlag": "# gets the flag", "PassesItself": "# gets the module"}
    kind = Helped if kind is Inherits else kind
    begin = 0 if kind.__name__ in marks else SOURCE.index(f"class {kind.__name__}({kind.__mro__[1].__name__}):")
    return next(i for i in range(begin, len(SOURCE)) if SOURCE[i].endswith(marks.get(kind.__name__, "# here"))) + 1


@pytest.mark.parametrize("kind", NOISY)
def test_noise_that_stays_off_is_noted(kind: type[nn.Module]) -> None:
    """The note has the class and the line, and comes once, from `predict` and from `sampling`."""
    model = nn.Sequential(nn.Dropout(), kind(), kind()).eval()

    r = mc.predict(model, X, 5, "regression", seed=0, batch_size=4)
    with pytest.warns(UserWarning, match="stays off") as caught, mc.sampling():
        model(X)

    expected = (
        f"{kind.__name__} draws random numbers in training mode (mc_noise_models.py:{line(kind)}), which stays off"
    )
    assert [note.partition(" here:")[0] for note in r.notes if "stays off" in note] == [expected]
    assert [str(warning.message).partition(" here:")[0] for warning in caught] == [expected]
    assert caught[0].filename == __file__
    assert r.variance.amax() > 0


@pytest.mark.parametrize("kind", QUIET)
def test_noise_that_does_not_stay_off_is_not_noted(kind: type[nn.Module]) -> None:
    """No note for noise of strength 0, noise in both modes, other uses of the flag, dead code, and dropout."""
    model = nn.Sequential(kind() if kind is not Block else nn.Linear(8, 8), nn.Dropout()).eval()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with mc.sampling():
            model(X)

    assert not [note for note in mc.predict(model, X, 3, "regression").notes if "stays off" in note]


@pytest.mark.parametrize("child", [nn.Dropout(0.1), nn.Sequential(GaussianNoise()), nn.Linear(8, 8)])
def test_a_module_that_is_not_called_is_noted_if_it_draws(child: nn.Module) -> None:
    """The flag of the module around it decides whether it is called."""
    assert len(noise_left_off(Child(child))) == (not isinstance(child, nn.Linear))


def test_hooks_and_forward_of_an_instance_are_read() -> None:
    """They run with the module, and receive it."""

    def hook(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
        return (args[0] + torch.randn_like(args[0]),) if module.training else None

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x

    hooked, patched = nn.Linear(8, 8), nn.Linear(8, 8)
    hooked.register_forward_pre_hook(hook)
    patched.forward = MethodType(forward, patched)

    assert len(noise_left_off(hooked)) == len(noise_left_off(patched)) == 1


def test_the_error_of_nothing_to_sample_names_noise() -> None:
    """Whoever expected the noise to be sampled reads why it was not."""
    model = nn.Sequential(Child(nn.RReLU()), nn.RReLU()).eval()
    model[0].drop = nn.Identity()

    for sample in (lambda: mc.predict(model, X), lambda: sampled(model)):
        with pytest.raises(mc.NothingToSample, match="Child draws random numbers") as error:
            sample()
        assert re.search(r"RReLU draws random numbers in training mode \(activation.py:\d+\)", str(error.value))


def sampled(model: Callable[[Tensor], Any]) -> None:
    with mc.sampling():
        model(X)


def test_a_class_without_source_has_no_notes() -> None:
    """Nothing is guessed."""
    names: dict[str, Any] = {}
    exec(
        "class Made(nn.Module):\n    def forward(self, x):\n        return x if self.training else x", globals(), names
    )

    assert noise_left_off(names["Made"]()) == []


class Branch(Block):
    """Stochastic depth, which is dropout, by random numbers of Python or NumPy."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        drops = self.training and self.draw() < self.p
        return x if drops else x + self.linear(x)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_draws_of_python_follow_the_seed(draw: Callable[[], float], alone: bool) -> None:
    """Random numbers of Python that are part of dropout follow the seed, with a note; the generators are restored."""
    branch = Branch(draw)
    model = (branch if alone else nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.01), branch)).eval()
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()

    r, again, other = (mc.predict(model, X, 20, "regression", seed=seed, keep_samples=True) for seed in (0, 0, 1))

    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert torch.equal(r.samples, again.samples)
    assert not torch.equal(r.samples, other.samples)
    assert r.samples.flatten(1).var(0).amax() > 1e-3
    assert any("generators of Python or NumPy" in note for note in r.notes)
    sampled(model)


def test_models_of_libraries_have_no_notes(torchvision: Any) -> None:
    """No note for their dropout, nor for what else they do in training mode, such as auxiliary heads."""
    with torch.device("meta"):
        models = [
            torchvision.models.resnet18(),
            torchvision.models.googlenet(aux_logits=True, init_weights=False),
            torchvision.models.VisionTransformer(16, 8, 1, 2, 8, 8, dropout=0.1),
            torchvision.models.densenet121(drop_rate=0.1),
        ]

    assert [note for model in models for module in model.modules() for note in noise_left_off(module)] == []
