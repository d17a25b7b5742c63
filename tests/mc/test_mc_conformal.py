"""Conformal sets and intervals hold the truth as often as they say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.predictions import classes, values

RUNS, HELD_OUT, NEW = 60, 99, 200


def some_classes(count: int, generator: torch.Generator) -> Any:
    """Overconfident probabilities of eight classes, and true classes."""
    logits = torch.randn(count, 8, generator=generator)
    y = logits.softmax(-1).multinomial(1, generator=generator).squeeze(1)
    return classes((4 * logits + torch.randn(3, count, 8, generator=generator)).softmax(-1)), y


def some_values(count: int, generator: torch.Generator) -> Any:
    """Samples that are far too close together, and true values with noise that depends on the input."""
    spread = torch.rand(count, 2, generator=generator) + 0.1
    y = spread * torch.randn(count, 2, generator=generator)
    return values(0.1 * spread * torch.randn(5, count, 2, generator=generator)), y


def held(result: Any, y: torch.Tensor) -> torch.Tensor:
    if isinstance(result, tuple):
        low, high = result
        return (low <= y) & (y <= high)
    return result.gather(-1, y.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(
    ("make", "method"),
    [(some_classes, method) for method in ("aps", "raps", "threshold")]
    + [(some_values, method) for method in ("scaled", "cqr")],
)
def test_the_truth_is_held_as_often_as_stated(make: Any, method: str, level: float) -> None:
    """At least the level, and at most 1 / (n + 1) more where scores do not tie."""
    generator = torch.Generator().manual_seed(0)
    coverages = []

    for _ in range(RUNS):
        (r, y), (new, truth) = make(HELD_OUT, generator), make(NEW, generator)
        coverages.append(held(r.conformal(y, level, method)(new), truth).double().mean().item())

    # The coverage of a run is Beta distributed, around which the new inputs scatter.
    bound = 5 * math.sqrt(level * (1 - level) * (1 / (HELD_OUT + 2) + 1 / NEW) / RUNS)
    mean = sum(coverages) / RUNS
    # The likeliest class is always in a set: sets that would be empty hold more.
    most = 1.0 if make is some_classes else level + 1 / (HELD_OUT + 1) + bound
    assert level - bound < mean <= most


@pytest.mark.parametrize(("make", "method"), [(some_classes, "aps"), (some_values, "scaled")])
def test_too_few_held_out_inputs_exclude_nothing(make: Any, method: str) -> None:
    """Eight inputs cannot show what holds in 90 % of all; nine can."""
    generator = torch.Generator().manual_seed(0)
    (r, y), (new, _) = make(8, generator), make(5, generator)

    result = r.conformal(y, 0.9, method)(new)

    if isinstance(result, tuple):
        assert bool(result[0].isneginf().all() & result[1].isposinf().all())
    else:
        assert bool(result.all())
    r, y = make(9, generator)
    assert bool(r.conformal(y, 0.9, method).threshold.isfinite().all())


def test_sets_are_of_the_likeliest_classes() -> None:
    """A class in a set comes with every likelier one, and no set is empty."""
    generator = torch.Generator().manual_seed(1)
    (r, y), (new, _) = some_classes(HELD_OUT, generator), some_classes(NEW, generator)

    for method in ("aps", "raps", "threshold"):
        in_set = r.conformal(y, 0.8, method)(new).gather(-1, new.mean.argsort(-1, descending=True))

        assert torch.equal(in_set, in_set.long().cummin(-1).values.bool())
        assert bool(in_set[:, 0].all())


def test_intervals_scale_with_the_spread_of_the_samples() -> None:
    """Twice the standard deviation gives twice the width; "cqr" adds the same to both."""
    generator = torch.Generator().manual_seed(1)
    r, y = some_values(HELD_OUT, generator)
    samples = torch.tensor([[[-1.0, -2.0]], [[1.0, 2.0]]])

    widths = {}
    for method in ("scaled", "cqr"):
        low, high = r.conformal(y, 0.9, method)(values(samples))
        widths[method] = (high - low)[0] / r.conformal(y, 0.9, method).threshold

    assert widths["scaled"][1] == pytest.approx(2 * widths["scaled"][0].item(), rel=1e-6)
    low, high = values(samples).interval(0.9)
    assert high[0, 0] > low[0, 0]


@pytest.mark.parametrize(("argument", "value"), [("level", 1.0), ("level", float("nan")), ("method", "other")])
@pytest.mark.parametrize("make", [some_classes, some_values])
def test_wrong_arguments_are_named(make: Any, argument: str, value: Any) -> None:
    """What is wanted, and what came."""
    r, y = make(20, torch.Generator().manual_seed(0))

    with pytest.raises(ValueError, match=f"{argument} must be .*, got {value}"):
        r.conformal(y, **{argument: value})
