"""The numbers of a mask at a rate in memory, in Triton: kernels/params.py, the same operations in the same order.

So a rate on the GPU is read by the kernel that uses it: nothing waits for the device, and no other kernel runs before.
Double precision, none of it fused, gives the bits that Python's floats would give.
"""

import triton
import triton.language as tl

from dropkit.kernels.gpu.philox import double


@triton.jit
def numbers_of(rate_ptr, threshold, scale, shift, fill, FUNCTION: tl.constexpr):
    """Threshold, and scale, shift and fill in float64; of noise the factor and the term are scale and shift.

    FUNCTION: name of the function in `PARAMS_BY_NAME` that makes them of the rate in memory; "" for those passed.
    """
    if FUNCTION == "":
        numbers = threshold.to(tl.uint32), double(scale), double(shift), double(fill)
    else:
        numbers = _made(tl.load(rate_ptr).to(tl.float64), FUNCTION)
    return numbers


@triton.jit
def _made(p, FUNCTION: tl.constexpr):
    if FUNCTION == "additive_normal":
        is_valid = (p >= 0) & (p < float("inf"))
    elif FUNCTION == "gaussian":
        is_valid = (p >= 0) & (p < 1)
    else:
        is_valid = (p >= 0) & (p <= 1)
    p = tl.where(is_valid, p, 0.0)
    zero = p - p
    below, a, b, c = zero, zero, zero, zero
    if FUNCTION == "additive_normal":
        b = p
    elif FUNCTION == "gaussian":
        a = tl.sqrt(p / (1.0 - p))
    else:
        # To the nearest integer, ties to even, as every sum of doubles is rounded at this size.
        below = (p * 4294967296.0 + 4503599627370496.0) - 4503599627370496.0
        if FUNCTION == "unscaled":
            a = zero + 1.0
        elif FUNCTION == "inverted":
            a = tl.where(p < 1.0, 1.0 / (1.0 - p), 0.0)
        else:
            root = tl.sqrt((1.7580993408473766 * 1.7580993408473766 * p + 1.0) * (1.0 - p))
            a = tl.where(p < 1.0, 1.0 / root, 0.0)
            b = 1.7580993408473766 * a * p
            c = b - 1.7580993408473766 * a
    # A kernel cannot raise: at a rate out of range everything becomes NaN.
    nan = float("nan")
    return below.to(tl.uint64), tl.where(is_valid, a, nan), tl.where(is_valid, b, nan), tl.where(is_valid, c, nan)
