"""Random numbers that follow from a key, in eager mode, compiled, under vmap and in a split tensor."""

import math

import pytest
import torch
from helpers import oracle
from helpers.compare import compiled

from dropkit import random, shard
from dropkit.nn.random_numbers import normal, uniform

EACH = pytest.mark.parametrize("numbers", [uniform, normal], ids=lambda function: function.__name__)
LIKE = torch.full((8, 64), math.nan)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_uniform_numbers_are_the_specified_ones(dtype):
    """Number j is the middle of the interval that the first bits of word j of the key choose."""
    bits = 23 if dtype == torch.float32 else 32

    numbers = uniform(LIKE.to(dtype), key=-3).flatten().tolist()

    expected = [((oracle.word(index, -3) >> 32 - bits) + 0.5) / 2**bits for index in range(LIKE.numel())]
    assert numbers == expected


def test_normal_numbers_follow_from_the_uniform_ones():
    """They are the inverse of the normal distribution function, at 32 bits."""
    numbers = normal(LIKE, key=-3)

    expected = torch.special.ndtri(uniform(LIKE.double(), key=-3))
    assert torch.allclose(numbers.double(), expected, rtol=4e-7, atol=0)


@EACH
def test_seeds_and_keys_decide(numbers):
    """A call draws a key, or takes it; the memory layout of `like` plays no part, nor its gradient."""
    torch.manual_seed(3)
    drawn = numbers(LIKE)
    torch.manual_seed(3)
    key = random.draw()

    assert torch.equal(drawn, numbers(LIKE, key=key))
    assert torch.equal(numbers(LIKE, generator=torch.Generator().manual_seed(3)), drawn)
    assert torch.equal(numbers(LIKE.T.contiguous().T.requires_grad_(), key=key), drawn)
    assert not numbers(LIKE.clone().requires_grad_()).requires_grad


@EACH
def test_compiled_and_vectorised(numbers):
    """One graph draws the numbers of eager mode; vmap gives each slice those of its key."""
    torch.manual_seed(3)
    expected = numbers(LIKE), numbers(LIKE)
    torch.manual_seed(3)
    drawn = compiled(lambda like: (numbers(like), numbers(like)))(LIKE)
    assert all(map(torch.equal, drawn, expected))

    keys = random.split(7, 8)
    by_slice = torch.vmap(lambda like, key: numbers(like, key=key))(LIKE, keys)
    assert torch.equal(by_slice, torch.stack([numbers(row, key=key) for row, key in zip(LIKE, keys, strict=True)]))


@EACH
def test_a_part_has_its_part_of_the_numbers(numbers):
    """Under `dropkit.shard` the numbers are those of the whole tensor."""
    with shard.holding(shard.Slice(dim=-1, start=16, total=64)):
        part = numbers(LIKE[:, 16:32], key=7)

    assert torch.equal(part, numbers(LIKE, key=7)[:, 16:32])


@EACH
def test_other_dtypes_are_refused(numbers):
    """Numbers of 16 bits would be rounded to 0 and 1."""
    with pytest.raises(TypeError, match=r"like must be of float32 or float64, got torch\.float16"):
        numbers(LIKE.half())
