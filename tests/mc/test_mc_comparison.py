"""Reports compare the samples with the plain pass."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.predictions import classes, values
from torch import Tensor

from dropkit.mc.metrics.comparison import Comparison, Difference, difference

RUNS, COUNT = 200, 300


def two_networks(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of two equally good predictions, and true classes."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(COUNT, 3, generator=generator)
    y = logits.softmax(-1).multinomial(1, generator=generator).squeeze(1)
    first, second = ((logits + torch.randn(COUNT, 3, generator=generator)).softmax(-1) for _ in range(2))
    return first, second, y


def of_classes(seed: int) -> Any:
    first, second, y = two_networks(seed)
    return replace(classes(first.unsqueeze(0)), plain=second).report(y).comparison


def of_values(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    y, *errors = (torch.randn(COUNT, generator=generator) for _ in range(3))
    sampled, plain = (y + error for error in errors)
    return replace(values(torch.stack([sampled, sampled])), plain=plain).report(y, tau=1.0).comparison


@pytest.mark.parametrize(
    ("compare", "name"), [(of_classes, name) for name in ("error", "nll", "brier", "ece")] + [(of_values, "rmse")]
)
def test_the_interval_holds_the_true_difference(compare: Any, name: str) -> None:
    """Of two equally good predictions neither is called better in more than 5 % of the runs."""
    items = [compare(seed).differences[name] for seed in range(RUNS)]

    coverage = sum(item.low <= 0 <= item.high for item in items) / RUNS
    assert coverage > 0.95 - 5 * math.sqrt(0.05 * 0.95 / RUNS)


def test_the_numbers_of_each_are_those_of_its_own_report() -> None:
    """The plain pass is reported as it would be alone."""
    first, second, y = two_networks(0)
    own = classes(second.unsqueeze(0)).report(y)

    compared = replace(classes(first.unsqueeze(0)), plain=second).report(y)

    for name, item in compared.comparison.differences.items():
        assert item.plain == pytest.approx(getattr(own, name), abs=1e-9)
        assert item.sampled == getattr(compared, name)
    assert own.comparison is None


def test_padding_of_values_does_not_count() -> None:
    """The comparison is that of the values that count, of the plain pass, too."""
    samples, plain, y = torch.randn(4, 9, 3), torch.randn(9, 3), torch.randn(9, 3)
    valid = torch.ones(9, 3, dtype=torch.bool)
    valid[:, 2] = False
    padded = replace(values(samples), plain=plain, valid=valid)
    spoilt = y.where(valid, math.nan)

    got = padded.report(spoilt, tau=2.0).comparison.differences

    expected = replace(values(samples[..., :2]), plain=plain[:, :2]).report(y[:, :2], tau=2.0).comparison.differences
    for name, item in expected.items():
        assert (got[name].sampled, got[name].plain) == pytest.approx((item.sampled, item.plain))
        assert (got[name].low, got[name].high) == pytest.approx((item.low, item.high))


@pytest.mark.parametrize(
    ("low", "high", "lower_is_better", "verdict"),
    [
        (0.1, 0.2, True, "worse"),
        (-0.2, -0.1, True, "better"),
        (0.1, 0.2, False, "better"),
        (-0.2, -0.1, False, "worse"),
        (-0.1, 0.1, True, "no clear difference"),
        (math.nan, math.nan, True, "no clear difference"),
    ],
)
def test_the_verdict_says_how_sampling_is(low: float, high: float, lower_is_better: bool, verdict: str) -> None:
    """It is better or worse only if the interval leaves out 0."""
    assert Difference(0.0, 0.0, low, high, lower_is_better).verdict == verdict


def test_the_sentence_names_what_decides() -> None:
    """The likelihood and the calibration, with their intervals."""
    item = difference(0.5, 0.4, torch.full((9,), 0.1))

    sentence = Comparison({"error": item, "nll": item}).sentence

    assert sentence == (
        "sampling is worse by negative log-likelihood: 0.5000, plain pass 0.4000, difference +0.1000 "
        "(95 % interval +0.1000 to +0.1000)"
    )


def test_a_report_prints_as_a_table() -> None:
    """With both predictions side by side."""
    first, second, y = two_networks(1)

    text = str(replace(classes(first.unsqueeze(0)), plain=second).report(y))

    assert "plain pass" in text
    assert "tensor(" not in text


def test_sampling_that_makes_a_calibrated_network_underconfident_is_worse() -> None:
    """The report shows what the documentation warns of."""
    generator = torch.Generator().manual_seed(0)
    p = (2 * torch.randn(3000, 4, generator=generator)).softmax(-1)
    y = p.multinomial(1, generator=generator).squeeze(1)
    r = classes((p / 2 + 1 / 8).unsqueeze(0))

    differences = replace(r, plain=p).report(y).comparison.differences

    assert differences["nll"].verdict == differences["ece"].verdict == "worse"
