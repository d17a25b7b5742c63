"""The number of a mask element, in Triton: kernels/numbers.py, the same operations in the same order, none fused.

The coefficients have no names, for the reason given at `philox`.
"""

import triton
import triton.language as tl


@triton.jit
def numbers(words, DISTRIBUTION: tl.constexpr, DTYPE: tl.constexpr):
    """The number of each word, "normal" or "uniform", in the arithmetic type of the call."""
    if DISTRIBUTION == "normal":
        number = _normal(words).to(DTYPE)
    elif DTYPE == tl.float64:  # noqa: SIM300 (a parameter in capitals)
        number = (words.to(DTYPE) + 0.5) * 2.0**-32
    else:
        number = ((words >> 9).to(DTYPE) + 0.5) * 2.0**-23
    return number


@triton.jit
def _normal(words):
    is_upper = words >= 0x80000000
    from_centre = (tl.where(is_upper, words, words ^ 0xFFFFFFFF) & 0x7FFFFFFF).to(tl.int32)
    centre = (from_centre.to(tl.float32) + 0.5) * 2.0**-32
    tail = (from_centre ^ 0x7FFFFFFF).to(tl.float32) + 0.5
    log = -_log((tail * 2.0**-30) * (1.0 - tail * 2.0**-32))
    size = centre * tl.where(log >= 6.0, _tail(log - 13.0), _centre(log - 3.0))
    return tl.where(is_upper, size, -size)


@triton.jit
def _log(z):
    """Natural logarithm of positive float32 numbers: that of a fraction in [2/3, 4/3), and a power of 2."""
    bits = z.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F2AAAAB) >> 23
    x = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    log = _polynomial(
        x, (-0.160796329, 0.174691871, -0.162667811, 0.197261259, -0.250175983, 0.333417475, -0.499997526, 0.999999344)
    )
    return exponent.to(tl.float32) * 0.693147182 + log * x


@triton.jit
def _centre(x):
    return _polynomial(
        x,
        (
            -1.64806284e-08, -1.22609665e-08, 1.28858164e-06, -5.33252842e-06, -3.60828853e-05, 0.000552890531,
            -0.00236476725, -0.0162311569, 0.683433771, 4.59207058,
        ),
    )  # fmt: skip


@triton.jit
def _tail(x):
    return _polynomial(
        x,
        (
            1.35494393e-12, -2.45251614e-11, 6.18601559e-11, 1.41874368e-09, -2.5334618e-08, 5.48377727e-07,
            -1.21962385e-05, 0.000274454505, -0.00745716458, 0.39536801, 9.73501968,
        ),
    )  # fmt: skip


@triton.jit
def _polynomial(x, coefficients):
    """The polynomial whose coefficients are these, that of the highest power first."""
    value = tl.full(x.shape, coefficients[0], tl.float32)
    for place in tl.static_range(1, len(coefficients)):
        value = value * x + coefficients[place]
    return value
