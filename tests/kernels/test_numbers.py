"""The numbers of mask elements: how near they are to the distribution, and what a kernel makes of them."""

import math

import pytest
import torch
from helpers.kernel_grid import DTYPES, same_bits
from helpers.triton_device import needs_interpreter

from dropkit import kernels
from dropkit.kernels import gpu
from dropkit.kernels.mask import Mask
from dropkit.kernels.numbers import NORMAL, UNIFORM, numbers
from dropkit.kernels.params import IDENTITY, NoiseParams, additive_normal, gaussian, uniform_number
from dropkit.kernels.reference import words
from dropkit.ops import autograd

SOME = torch.arange(20_000)
# Both ends, the middle, and words all over the range, also near the ends on a logarithmic scale.
WORDS = torch.cat(
    [
        SOME,
        2**31 - 10_000 + SOME,
        torch.linspace(0, 2**32 - 1, 400_000, dtype=torch.float64).long(),
        (2**31 * torch.linspace(-21, 0, 200_000, dtype=torch.float64).exp()).long(),
    ]
).clamp(0, 2**32 - 1)


def test_normal_numbers_are_accurate():
    """They are the inverse distribution function at the middle of the interval of a word, up to 4e-7 of it."""
    below = (WORDS.double() + 0.5) / 2**32
    expected = torch.special.ndtri(torch.where(WORDS < 2**31, below, 0.5))
    near = WORDS < 2**31

    number = numbers(WORDS, NORMAL, torch.float32).double()

    assert ((number / expected - 1).abs() < 4e-7)[near].all()
    assert torch.equal(numbers(2**32 - 1 - WORDS, NORMAL, torch.float32).double(), -number)


@pytest.mark.skipif(gpu.missing is not None, reason=str(gpu.missing))
@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("distribution", "code"), [("normal", NORMAL), ("uniform", UNIFORM)])
def test_numbers_on_gpus_are_those_of_the_reference(distribution, code, dtype):
    """The same bits for words at both ends, in the middle and between, which includes both polynomials."""
    from helpers.numbers_on_gpu import numbers_on_gpu

    assert same_bits(numbers_on_gpu(WORDS, distribution, dtype), numbers(WORDS, code, dtype))


@pytest.mark.parametrize("params", [gaussian(0.3), additive_normal(1.0), uniform_number(0.5)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_kernel_gives_the_specified_values(dtype, params):
    """An element becomes x * (1 + factor * n) + term * n in the arithmetic type, rounded once more to its own."""
    x = torch.randn(7, 30).to(dtype)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    factor, term = (torch.tensor(number, dtype=arithmetic) for number in params[1:])
    n = numbers(words(torch.arange(3, 3 + x.numel()), torch.tensor(-5)), params.distribution, arithmetic).view(7, 30)
    output = torch.empty_like(x)

    kernels.drop(output, x, Mask(-5, params, None, 3))

    assert same_bits(output, (x.to(arithmetic) * (1 + factor * n) + term * n).to(dtype))


def test_gradients_have_the_factor_and_no_term():
    """Where a number only adds, the gradient is that of the output itself."""
    x = torch.randn(50, requires_grad=True)
    upstream = torch.randn(50)
    mixed = NoiseParams(UNIFORM, 0.7, 2.0)

    (by_factor,) = torch.autograd.grad(autograd.drop(x, Mask(3, mixed)), x, upstream)
    (by_term,) = torch.autograd.grad(autograd.drop(x, Mask(3, additive_normal(2.0))), x, upstream)

    assert torch.equal(by_factor, autograd.drop(upstream, Mask(3, mixed._replace(term=0.0))))
    assert additive_normal(2.0).gradient is IDENTITY
    assert torch.equal(by_term, upstream)


def test_gaussian_dropout_needs_a_finite_variance():
    """At p = 1 the variance p / (1 - p) would be infinite."""
    assert gaussian(0.5).factor == 1.0
    for p in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="p must be in"):
            gaussian(p)
