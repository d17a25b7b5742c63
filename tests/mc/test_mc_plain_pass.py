"""The plain pass of `predict`: one in evaluation mode, without dropout, beside the samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.mc_models import MODELS, Calls, close, inputs, made
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import dropkit
from dropkit.mc.predict import predict

COUNT = 70
X = inputs(COUNT)


def run(model: nn.Module, x: Any = X, samples: int = 4, **settings: Any) -> Any:
    return predict(model, x, samples, **{"seed": 5, "task": "regression", **settings})


@torch.no_grad()
def evaluated(model: nn.Module, x: Tensor = X) -> Tensor:
    return model.eval()(x).float()


class Rows(TorchDispatchMode):
    """Notes how many rows each linear layer gets."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.addmm.default:
            self.rows.append(len(args[1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [{}, {"masks": "shared"}, {"replay": False}, {"batch_size": 13}], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_it_is_what_the_model_returns_in_evaluation_mode(name: str, settings: dict[str, Any]) -> None:
    """Whatever drops in the samples does nothing in the plain pass, and no note is made of it."""
    r = run(made(name), **settings)

    assert close(r.plain, evaluated(made(name)))
    assert r.plain.shape == r.mean.shape
    assert r.notes == ()


def test_it_changes_no_sample() -> None:
    """The samples are those of a run without the plain pass."""
    with_plain, without = (run(made("cnn"), keep_samples=True, plain=plain) for plain in (True, False))

    assert torch.equal(with_plain.samples, without.samples)
    assert without.plain is None


def test_classes_are_probabilities() -> None:
    """The plain pass goes through the same softmax as the samples."""
    model = nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.5))
    x = torch.randn(9, 8)

    plain = dropkit.mc.predict(model, x, 5, seed=0).plain

    assert close(plain, evaluated(model, x).softmax(-1))


def test_it_takes_the_prefix_from_the_samples() -> None:
    """What comes before the first dropout, one at a rate of 0 included, is not computed again."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.0), nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 3))

    with Rows() as calls:
        run(model, torch.randn(COUNT, 8), samples=3, masks="input")

    before_dropout, passes = 2, 3 + 1
    assert calls.rows.count(COUNT) == before_dropout + passes


def test_dropout_that_is_always_active_moves_no_generator() -> None:
    """The plain pass is one in evaluation mode, where such a model still drops."""
    model = Calls(lambda self, x: nn.functional.dropout(x, 0.5))
    before = torch.get_rng_state()

    r = run(model)

    assert bool((r.plain == 0).any())
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_of_everything_is_off() -> None:
    """A rate of 1, too, is one of training alone."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(1.0))

    assert torch.equal(run(model).plain, X)
