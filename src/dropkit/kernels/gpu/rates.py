"""The numbers of a mask at a rate in memory, by the functions of kernels/params.py, which Triton compiles.

So a rate on the GPU is read by the kernel that uses it: nothing waits for the device, and no other kernel runs before.
Double precision, none of it fused, gives the bits that Python's floats would give.
"""

from types import FunctionType
from typing import Any

import triton
import triton.language as tl

from dropkit.kernels import params
from dropkit.kernels.gpu.philox import double


@triton.jit
def _where(condition, x, y):
    return tl.where(condition, x, y)


@triton.jit
def _sqrt(x):
    return tl.sqrt(x)


@triton.jit
def _integer(x):
    return x.to(tl.uint64)


@triton.jit
def _check(argument, holds, wanted, value):
    """Nothing: a kernel cannot raise."""


# The names in the functions' source that mean something else to Triton; `str` is the type of an argument.
_NAMES = {**vars(params), "tl": tl, "str": tl.constexpr, "NORMAL": tl.constexpr(params.NORMAL), "check": _check}
_NAMES |= {"SATURATION": tl.constexpr(params.SATURATION), "_where": _where, "_sqrt": _sqrt, "_integer": _integer}


def _compiled(function: FunctionType) -> Any:
    """Compile a function of kernels/params.py by Triton; those that are compiled later may call it."""
    _NAMES[function.__name__] = triton.jit(FunctionType(function.__code__, _NAMES))
    return _NAMES[function.__name__]


_is_valid, _threshold = _compiled(params.is_valid), _compiled(params.threshold)
_inverted, _unscaled, _alpha = _compiled(params.inverted), _compiled(params.unscaled), _compiled(params.alpha)
_gaussian, _additive_normal = _compiled(params.gaussian), _compiled(params.additive_normal)


@triton.jit
def numbers_of(rate_ptr, threshold, scale, shift, fill, FUNCTION: tl.constexpr):
    """Threshold, and scale, shift and fill in float64; of noise the factor and the term are scale and shift.

    FUNCTION: name of the function in `PARAMS_BY_NAME` that makes them of the rate in memory; "" for those passed.
    """
    if FUNCTION == "":
        numbers = threshold.to(tl.uint32), double(scale), double(shift), double(fill)
    else:
        p = tl.load(rate_ptr).to(tl.float64)
        valid = _is_valid(p, FUNCTION)
        below, a, b, c = _made(tl.where(valid, p, 0.0), FUNCTION)
        # A kernel cannot raise: at a rate out of range everything becomes NaN.
        nan = float("nan")
        numbers = below, tl.where(valid, a, nan), tl.where(valid, b, nan), tl.where(valid, c, nan)
    return numbers


@triton.jit
def _made(p, FUNCTION: tl.constexpr):
    if FUNCTION == "inverted":
        below, a, b, c = _inverted(p)
    elif FUNCTION == "unscaled":
        below, a, b, c = _unscaled(p)
    elif FUNCTION == "alpha":
        below, a, b, c = _alpha(p)
    else:
        below, c = tl.full([], 0, tl.uint64), 0.0
        _, a, b = _gaussian(p) if FUNCTION == "gaussian" else _additive_normal(p)
    return below, a, b, c
