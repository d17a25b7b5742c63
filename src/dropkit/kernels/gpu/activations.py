"""Bias, activation, dropout and addition in one kernel, and the gradient in another, in Triton."""

import triton
import triton.language as tl

from dropkit.kernels.gpu.philox import VARYING, double, dropped, kept, key_words, rounded_sum

# Named like the activations of `bias_act_dropout_add`, in upper case.
RELU, GELU, GELU_TANH, SILU = (tl.constexpr(place) for place in range(4))

_SQRT_HALF = tl.constexpr(0.7071067811865476)
_SQRT_2_BY_PI = tl.constexpr(0.7978845608028654)
# 1 / sqrt(2 pi).
_DENSITY = tl.constexpr(0.3989422804014327)
_CUBIC = tl.constexpr(0.044715)


@triton.jit
def _tanh(x):
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit
def _activated(x, ACTIVATION: tl.constexpr):
    """The activation, in float32."""
    if ACTIVATION == RELU:
        # Not maximum, so that NaN stays NaN.
        y = tl.where(x < 0.0, 0.0, x)
    elif ACTIVATION == GELU:
        y = 0.5 * x * (1.0 + tl.erf(x * _SQRT_HALF))
    elif ACTIVATION == GELU_TANH:
        y = 0.5 * x * (1.0 + _tanh((x + x * x * x * _CUBIC) * _SQRT_2_BY_PI))
    else:
        y = x / (1.0 + tl.exp(-x))
    return y


@triton.jit
def _slope(x, ACTIVATION: tl.constexpr):
    """The derivative of the activation, in float32."""
    if ACTIVATION == RELU:
        y = tl.where(x <= 0.0, 0.0, 1.0)
    elif ACTIVATION == GELU:
        y = 0.5 * (1.0 + tl.erf(x * _SQRT_HALF)) + x * _DENSITY * tl.exp(-0.5 * x * x)
    elif ACTIVATION == GELU_TANH:
        t = _tanh((x + x * x * x * _CUBIC) * _SQRT_2_BY_PI)
        y = 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (1.0 + x * x * (3.0 * _CUBIC)) * _SQRT_2_BY_PI
    else:
        s = 1.0 / (1.0 + tl.exp(-x))
        y = s * (1.0 + x * (1.0 - s))
    return y


@triton.jit
def _plus_bias(x, bias_ptr, columns, GROUP: tl.constexpr, BLOCK: tl.constexpr):
    """The elements of a block plus the bias of their column, rounded to their type.

    GROUP: as many neighbours are read at once, after one division in 32 bits; a divisor of `columns`.
    """
    groups = columns.to(tl.int32) // GROUP
    first = (tl.program_id(0) % groups) * ((BLOCK // GROUP) % groups) % groups
    group = (first + tl.arange(0, BLOCK // GROUP)) % groups
    bias = tl.load(bias_ptr + (group * GROUP)[:, None] + tl.arange(0, GROUP)[None, :])
    return rounded_sum(x, tl.reshape(bias, [BLOCK]))


@triton.jit
def _drop(x, key, threshold, scale, start, KEY_IN_MEMORY: tl.constexpr, BLOCK: tl.constexpr):
    """Drop elements whose mask indices are consecutive from `start` on; rounded to their type."""
    low, high, block0 = key_words(key, KEY_IN_MEMORY)
    eight: tl.constexpr = x.dtype.primitive_bitwidth == 16
    keep = kept(start, threshold, low, high, block0, eight, BLOCK, [BLOCK])
    return dropped(x, keep, double(scale), None, None, False).to(x.dtype)


@triton.jit
def _loaded(pointers, at, left, is_full):
    """Load the places `at` that are below `left`: all of them if `is_full`.

    Full blocks are read without a mask, which would keep reads of odd counts from being wide. The branch also keeps the
    compiler from moving the loads behind the random words, for which memory need not wait.
    """
    if is_full:  # noqa: SIM108 (both calls on one line would hide the mask)
        x = tl.load(pointers)
    else:
        x = tl.load(pointers, at < left.to(tl.int32))
    return x


@triton.jit
def _store(pointers, y, at, left, is_full):
    if is_full:
        tl.store(pointers, y)
    else:
        tl.store(pointers, y, at < left.to(tl.int32))


@triton.jit(do_not_specialize=VARYING)
def forward(
    output_ptr,
    input_ptr,
    bias_ptr,
    residual_ptr,
    key,
    threshold: tl.uint32,
    scale: tl.int64,
    count: tl.int64,
    columns: tl.int64,
    KEY_IN_MEMORY: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BIAS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All tensors contiguous; `bias` has an element for each place in the last dimension."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    left, is_full = count - start, count - start >= BLOCK
    x = _loaded(input_ptr + start + at, at, left, is_full)
    residual = _loaded(residual_ptr + start + at, at, left, is_full)
    if BIAS:
        x = _plus_bias(x, bias_ptr, columns, GROUP, BLOCK)
    y = _activated(x.to(tl.float32), ACTIVATION).to(x.dtype)
    y = _drop(y, key, threshold, scale, start, KEY_IN_MEMORY, BLOCK)
    _store(output_ptr + start + at, rounded_sum(y, residual), at, left, is_full)


@triton.jit(do_not_specialize=VARYING)
def backward(
    grad_input_ptr,
    grad_output_ptr,
    input_ptr,
    bias_ptr,
    key,
    threshold: tl.uint32,
    scale: tl.int64,
    count: tl.int64,
    columns: tl.int64,
    KEY_IN_MEMORY: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BIAS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of the activation's input; its sum over rows is the gradient of the bias."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    left, is_full = count - start, count - start >= BLOCK
    x = _loaded(input_ptr + start + at, at, left, is_full)
    g = _loaded(grad_output_ptr + start + at, at, left, is_full)
    if BIAS:
        x = _plus_bias(x, bias_ptr, columns, GROUP, BLOCK)
    g = _drop(g, key, threshold, scale, start, KEY_IN_MEMORY, BLOCK)
    y = g.to(tl.float32) * _slope(x.to(tl.float32), ACTIVATION)
    _store(grad_input_ptr + start + at, y.to(grad_input_ptr.dtype.element_ty), at, left, is_full)
