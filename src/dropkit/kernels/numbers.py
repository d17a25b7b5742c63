"""The number of a mask element: uniform or normal, from its random word, in operations that every machine rounds alike.

A normal number is the inverse distribution function of the uniform one. With `c` its distance from 1/2 and `q` its
distance from the nearer end of (0, 1), it is `c * P(L)`, where `L = -log(4 * q * (1 - q))` is small wherever numbers
are likely: one polynomial P serves 99.8 % of them, another the tails. Coefficients are least-maximum fits of degree
9 and 10, and 7 for the logarithm. The relative error is below 4e-7, at most 1.3e-6 absolute.

Source of the substitution: Giles, "Approximating the erfinv Function", GPU Computing Gems, Jade edition, 2011.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Codes of distributions, which operators and the compiled kernel read.
NORMAL, UNIFORM = 0, 1

# float32 numbers, the coefficient of the highest power first.
_CENTRE = (
    -1.64806284e-08, -1.22609665e-08, 1.28858164e-06, -5.33252842e-06, -3.60828853e-05, 0.000552890531,
    -0.00236476725, -0.0162311569, 0.683433771, 4.59207058,
)  # fmt: skip
_TAIL = (
    1.35494393e-12, -2.45251614e-11, 6.18601559e-11, 1.41874368e-09, -2.5334618e-08, 5.48377727e-07, -1.21962385e-05,
    0.000274454505, -0.00745716458, 0.39536801, 9.73501968,
)  # fmt: skip
_LOG = (
    -0.160796329, 0.174691871, -0.162667811, 0.197261259, -0.250175983, 0.333417475, -0.499997526, 0.999999344,
)  # fmt: skip
_LN2 = 0.693147182


def numbers(words: Tensor, distribution: int, dtype: torch.dtype) -> Tensor:
    """The number of each word.

    Args:
        words: int64 in [0, 2**32).
        distribution: NORMAL or UNIFORM.
        dtype: arithmetic type of the call, float32 or float64. A uniform number is the middle of the interval of
            2**-23 or 2**-32 that it lies in, so it is exact, and never 0 or 1; a normal number is the same in both.
    """
    if distribution == NORMAL:
        return _normal(words).to(dtype)
    if dtype == torch.float64:
        return (words.to(dtype) + 0.5) * 2.0**-32
    return ((words >> 9).to(dtype) + 0.5) * 2.0**-23


def _normal(words: Tensor) -> Tensor:
    is_upper = words >= 2**31
    from_centre = torch.where(is_upper, words, ~words) & 0x7FFFFFFF
    centre = (from_centre.float() + 0.5) * 2.0**-32
    tail = (from_centre ^ 0x7FFFFFFF).float() + 0.5
    log = -_log((tail * 2.0**-30) * (1.0 - tail * 2.0**-32))
    size = centre * torch.where(log >= 6.0, _polynomial(log - 13.0, _TAIL), _polynomial(log - 3.0, _CENTRE))
    return torch.where(is_upper, size, -size)


def _log(z: Tensor) -> Tensor:
    """Natural logarithm of positive float32 numbers: that of a fraction in [2/3, 4/3), and a power of 2."""
    bits = z.view(torch.int32)
    exponent = (bits - 0x3F2AAAAB) >> 23
    x = (bits - (exponent << 23)).view(torch.float32) - 1.0
    return exponent.float() * _LN2 + _polynomial(x, _LOG) * x


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
