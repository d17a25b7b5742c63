"""What Keras' layers do and their own tests check, as laws of dropkit's layers. Keras itself is not run."""

import math

import pytest
import torch

from dropkit import functional as F
from dropkit.nn import (
    AlphaDropout,
    Dropout,
    DropPath,
    FeatureAlphaDropout,
    GaussianDropout,
    GaussianNoise,
    PatchDropout,
)

# What SELU tends to on the left, negated.
SATURATION = 1.6732632423543772 * 1.0507009873554805


def alpha_deviation(p):
    """Of AlphaDropout's output for ones: the distance of kept and dropped values, times that of a mask element."""
    return (1 + SATURATION) * math.sqrt(p * (1 - p) / ((1 - p) * (1 + p * SATURATION**2)))


@pytest.mark.parametrize(
    ("module", "mean", "std"),
    [
        (Dropout(0.5), 1.0, 1.0),
        (GaussianDropout(0.3), 1.0, math.sqrt(0.3 / 0.7)),
        (GaussianNoise(0.3), 1.0, 0.3),
        (AlphaDropout(0.3), None, alpha_deviation(0.3)),
    ],
    ids=["Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout"],
)
def test_noise_has_the_moments_that_keras_checks(module, mean, std):
    """On ones, within five standard errors. Keras allows an error of 0.02, and of 0.1 from 1 for AlphaDropout."""
    output = module(torch.ones(1000, 500))

    n = output.numel()
    spread = (output - output.mean()) ** 2
    assert mean is None or abs(output.mean() - mean) < 5 * std / math.sqrt(n)
    assert abs(spread.mean() - std**2) < 5 * spread.std() / math.sqrt(n) + std**2 / n


def test_dropout_scales_ones_to_2_at_rate_one_half():
    """As in Keras the largest output is 1 / (1 - p)."""
    assert Dropout(0.5)(torch.ones(20, 500)).max() == 2


@pytest.mark.parametrize(
    ("function", "shape", "noise_shape"),
    [
        (F.dropout1d, (10, 10, 3), (None, 1, None)),
        (F.dropout2d, (10, 10, 3, 4), (None, 1, 1, None)),
        (F.dropout3d, (10, 10, 3, 4, 2), (None, 1, 1, 1, None)),
    ],
    ids=["1d", "2d", "3d"],
)
def test_spatial_dropout_is_channel_dropout_of_either_format(function, shape, noise_shape):
    """channels_first is dropout1d to 3d; channels_last, Keras' default, is a noise_shape with the same mask."""
    first = torch.ones(shape)
    last = first.movedim(1, -1)

    output = function(first, 0.5, key=7)

    assert torch.equal(F.dropout(last, 0.5, noise_shape=noise_shape, key=7), output.movedim(1, -1))
    assert torch.equal(output, output[(..., *(slice(1),) * (len(shape) - 2))].expand_as(output))


def test_alpha_dropout_over_time_is_that_of_features():
    """Keras' AlphaDropout with noise_shape (None, 1, None) is FeatureAlphaDropout on the transposed input."""
    output = FeatureAlphaDropout(0.5)(torch.ones(20, 5, 10).mT).mT

    assert torch.equal(output, output[:, :1].expand_as(output))
    assert len(output[:, 0].unique(dim=0)) == 20


@pytest.mark.parametrize("given", [None, (20, 1, 10), (None, 1, None), [20, 1, 10]], ids=str)
def test_a_noise_shape_is_kept_as_a_tuple(given):
    """Also if it came as a list."""
    assert Dropout(0.5, noise_shape=given).noise_shape == (None if given is None else tuple(given))


def make_noise(seed):
    """One training call of each layer of Keras, after the seed."""
    torch.manual_seed(seed)
    x = torch.ones(20, 50)
    return torch.stack([layer(0.3)(x) for layer in (Dropout, GaussianDropout, GaussianNoise, AlphaDropout)])


def test_a_seed_decides_all_noise():
    """Equal seeds give equal outputs, others others; here a seed is that of the program, in Keras one of each layer."""
    first = make_noise(1337)

    assert torch.equal(make_noise(1337), first)
    assert all((one != other).any() for one, other in zip(make_noise(1338), first, strict=True))


@pytest.mark.parametrize("rate", [-0.5, 1.5])
@pytest.mark.parametrize(
    "kind", [Dropout, AlphaDropout, GaussianDropout, PatchDropout, DropPath], ids=lambda kind: kind.__name__
)
def test_rates_out_of_range_are_refused(kind, rate):
    """When the layer is made, as in Keras; timm's DropPath and DropBlock2d fail when called."""
    with pytest.raises(ValueError, match="probability has to be between 0 and 1, but got"):
        kind(rate)
