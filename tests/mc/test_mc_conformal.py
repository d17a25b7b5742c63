"""Conformal sets and intervals hold the truth as often as they say."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.predictions import classes, values

from dropkit.mc import MultilabelPrediction

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


def lengths(count: int, generator: torch.Generator) -> torch.Tensor:
    """Where six tokens are not padding: none of some inputs, all of few."""
    return torch.arange(6) < torch.randint(0, 7, (count, 1), generator=generator)


def some_tokens(count: int, generator: torch.Generator) -> Any:
    """Tagging that is overconfident for short inputs, so that a token of theirs counts as much as many of long ones."""
    valid = lengths(count, generator)
    excess = 7 - valid.sum(1).view(-1, 1, 1)
    logits = torch.randn(count, 6, 4, generator=generator)
    y = logits.softmax(-1).flatten(0, 1).multinomial(1, generator=generator).view(count, 6)
    return padded(classes((excess * logits).softmax(-1).unsqueeze(0)), valid), y.where(valid, -100)


def some_series(count: int, generator: torch.Generator) -> Any:
    """Series of different length, whose values err together, and more where they are short."""
    valid = lengths(count, generator)
    spread = torch.rand(count, 1, generator=generator) + 7 - valid.sum(1, keepdim=True)
    y = spread * torch.randn(count, 6, generator=generator)
    return padded(values(torch.randn(5, count, 6, generator=generator)), valid), y.where(valid, torch.nan)


def some_labels(count: int, generator: torch.Generator) -> Any:
    """Five labels of different frequency, none true of some inputs; probabilities that are far too low."""
    logits = torch.randn(count, 5, generator=generator) + torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0])
    y = torch.bernoulli(logits.sigmoid(), generator=generator).long()
    return labels((logits - 2).sigmoid()), y


def padded(r: Any, valid: torch.Tensor) -> Any:
    """The prediction with nan at padding, as `predict` returns it."""

    def masked(value: torch.Tensor) -> torch.Tensor:
        return value.where(valid if value.dim() == valid.dim() else valid.unsqueeze(-1), torch.nan)

    return replace(r, measures={name: masked(value) for name, value in r.measures.items()}, valid=valid)


def labels(p: torch.Tensor) -> MultilabelPrediction:
    """A prediction of these probabilities."""
    return MultilabelPrediction({"mean": p}, {}, torch.full((len(p),), 5), None, ())


@pytest.mark.parametrize("each", [False, True], ids=["one threshold", "each its own"])
@pytest.mark.parametrize(
    ("make", "options"),
    [(some_tokens, {"method": "aps"}), (some_tokens, {"method": "threshold"}), (some_labels, {})]
    + [(some_series, {"method": method}) for method in ("scaled", "cqr")],
)
def test_the_truth_of_many_labels_is_held_as_often_as_stated(make: Any, options: Any, each: bool) -> None:
    """The fraction of an input's labels, or of inputs at each position; where several may be true, of the true ones."""
    generator = torch.Generator().manual_seed(0)
    level, fractions = 0.8, []

    for _ in range(RUNS):
        (r, y), (new, truth) = make(HELD_OUT, generator), make(NEW, generator)
        result = r.conformal(y, level, **options, each=each)(new)
        is_held, counts = (result, truth == 1) if make is some_labels else (None, new.valid)
        if is_held is None:
            is_held = held(result, truth.clamp(min=0) if make is some_tokens else truth)
        is_held = is_held & counts
        dim = 0 if each else 1
        fractions.append((is_held.sum(dim) / counts.sum(dim)).nanmean().item())

    # A fraction of an input is in [0, 1], so its variance is at most that of a choice; both sides scatter.
    bound = 5 * math.sqrt(level * (1 - level) * (2 / HELD_OUT + 2 / NEW) / RUNS)
    assert sum(fractions) / RUNS > level - bound


def test_one_threshold_for_one_label_is_that_of_each() -> None:
    """Risk control of a single label is split conformal prediction."""
    r, y = some_classes(HELD_OUT, torch.Generator().manual_seed(0))

    for level in (0.5, 0.8, 0.9, 0.97):
        first, second = (r.conformal(y, level, each=each).threshold for each in (False, True))
        assert torch.equal(first, second)


@pytest.mark.parametrize("make", [some_tokens, some_series])
def test_padding_changes_nothing(make: Any) -> None:
    """Labels at padding do not count, sets are empty there and intervals not numbers; lengths may differ."""
    generator = torch.Generator().manual_seed(2)
    (r, y), (new, _) = make(HELD_OUT, generator), make(NEW, generator)
    longer = [torch.nn.functional.pad(value, (0, 3), value=3) for value in (r.valid, y)]
    more = replace(
        r,
        measures={
            name: torch.cat([value, value.new_full((HELD_OUT, 3, *value.shape[2:]), math.nan)], 1)
            for name, value in r.measures.items()
        },
        valid=longer[0] & (torch.arange(9) < 6),
    )

    conformal, same = r.conformal(y), more.conformal(longer[1])
    result = conformal(new)

    assert torch.equal(conformal.threshold, same.threshold)
    ends = result if isinstance(result, tuple) else (result,)
    for end in ends:
        assert not bool((end.nan_to_num(0.0) != 0)[~new.valid].any())
        assert bool((end if end.dtype == torch.bool else end.isfinite())[new.valid].any())
    assert conformal.threshold.shape == ()
    with pytest.raises(ValueError, match=r"prediction must be of \(9,\) labels an input.*got \(6,\)"):
        more.conformal(longer[1], each=True)(new)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.ones(3, 4), r"y must be of shape \(2, 3\)"),
        (torch.full((2, 3), 0.5), "y must be 1 or 0 for each label, or -100, got 0.5"),
        (torch.zeros(2, 3), "y must be true for some label, got none"),
    ],
)
def test_true_labels_are_checked(y: torch.Tensor, words: str) -> None:
    """A set of labels needs some that are true."""
    with pytest.raises(ValueError, match=words):
        labels(torch.full((2, 3), 0.5)).conformal(y)


@pytest.mark.parametrize("make", [some_classes, some_labels, some_values])
def test_predictions_of_another_kind_are_refused(make: Any) -> None:
    """Sets of classes are of classes, and so on; the error says what came."""
    generator = torch.Generator().manual_seed(0)
    kinds = {other: other(20, generator) for other in (some_classes, some_labels, some_values)}
    r, y = kinds.pop(make)

    for other, _ in kinds.values():
        with pytest.raises(TypeError, match=f"prediction must be a {type(r).__name__}, got {type(other).__name__}"):
            r.conformal(y)(other)


def test_a_value_that_is_no_number_is_refused() -> None:
    """It may be missing at padding alone."""
    r, y = some_series(20, torch.Generator().manual_seed(0))

    with pytest.raises(ValueError, match="y must be numbers where values count, got nan"):
        r.conformal(torch.full_like(y, math.nan))


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
