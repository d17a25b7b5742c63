"""Dropout, addition and normalisation of rows in one kernel, and its gradient, in Triton."""

import triton
import triton.language as tl

from dropkit.kernels.gpu.philox import VARYING, double, dropped, halves, kept, rounded_sum, word


@triton.jit
def _kept_in_row(first, threshold, low, high, ALIGNED: tl.constexpr, EIGHT: tl.constexpr, COLUMNS: tl.constexpr):
    """Whether each element of a row is kept; mask indices are consecutive from `first` on."""
    if ALIGNED:
        keep = kept(first, threshold, low, high, EIGHT, COLUMNS, [COLUMNS])
    else:
        keep = word(first + tl.arange(0, COLUMNS).to(tl.int64), low, high) >= threshold.to(tl.uint32)
    return keep


@triton.jit(do_not_specialize=(*VARYING, "eps"))
def forward(
    output,
    summed,
    mean,
    spread,
    input,
    residual,
    weight,
    bias,
    row_scale,
    key,
    threshold: tl.uint32,
    scale: tl.int64,
    columns: tl.int64,
    eps: tl.int64,
    KEY_IN_MEMORY: tl.constexpr,
    DROPS: tl.constexpr,
    ALIGNED: tl.constexpr,
    CENTRED: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    ROW_SCALE: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One row a program; rows are contiguous. `spread` is 1 / the standard deviation."""
    row = tl.program_id(0).to(tl.int64)
    start = row * columns
    at = tl.arange(0, COLUMNS)
    inside = at < columns
    z = tl.load(input + start + at, inside, other=0.0)
    if DROPS:
        eight: tl.constexpr = input.dtype.element_ty.primitive_bitwidth == 16
        low, high = halves(key, KEY_IN_MEMORY)
        keep = _kept_in_row(start, threshold, low, high, ALIGNED, eight, COLUMNS)
        z = dropped(z, keep, scale, scale, scale, False).to(z.dtype)
    if ROW_SCALE:
        z = (z.to(tl.float32) * tl.load(row_scale + row).to(tl.float32)).to(z.dtype)
    z = rounded_sum(z, tl.load(residual + start + at, inside, other=0.0))
    tl.store(summed + start + at, z, inside)
    y = z.to(tl.float32)
    if CENTRED:
        middle = tl.sum(y, 0) / columns
        tl.store(mean + row, middle)
        y = tl.where(inside, y - middle, 0.0)
    over = 1.0 / tl.sqrt_rn(tl.sum(y * y, 0) / columns + double(eps).to(tl.float32))
    tl.store(spread + row, over)
    y *= over
    if WEIGHT:
        y *= tl.load(weight + at, inside, other=0.0).to(tl.float32)
    if BIAS:
        y += tl.load(bias + at, inside, other=0.0).to(tl.float32)
    tl.store(output + start + at, y.to(output.dtype.element_ty), inside)


@triton.jit(do_not_specialize=VARYING)
def backward(
    grad_input,
    grad_residual,
    grad_weight,
    grad_bias,
    grad_output,
    grad_summed,
    summed,
    mean,
    spread,
    weight,
    row_scale,
    key,
    threshold: tl.uint32,
    scale: tl.int64,
    rows: tl.int64,
    columns: tl.int64,
    rows_each: tl.int64,
    KEY_IN_MEMORY: tl.constexpr,
    GRAD_SUMMED: tl.constexpr,
    DROPS: tl.constexpr,
    ALIGNED: tl.constexpr,
    CENTRED: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    ROW_SCALE: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Several rows a program, which writes its part of the gradients of weight and bias to a float32 row of its own."""
    program = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, COLUMNS)
    inside = at < columns
    low, high = halves(key, KEY_IN_MEMORY)
    of_weight = tl.zeros([COLUMNS], tl.float32)
    of_bias = tl.zeros([COLUMNS], tl.float32)
    if WEIGHT:
        w = tl.load(weight + at, inside, other=0.0).to(tl.float32)
    first = program * rows_each
    for row in range(first, tl.minimum(first + rows_each, rows)):
        start = row * columns
        y = tl.load(summed + start + at, inside, other=0.0).to(tl.float32)
        over = tl.load(spread + row)
        if CENTRED:
            y = tl.where(inside, y - tl.load(mean + row), 0.0)
        y *= over
        g = tl.load(grad_output + start + at, inside, other=0.0).to(tl.float32)
        of_weight += g * y
        of_bias += g
        if WEIGHT:
            g *= w
        z = g - y * (tl.sum(g * y, 0) / columns)
        if CENTRED:
            z -= tl.sum(g, 0) / columns
        z *= over
        if GRAD_SUMMED:
            z += tl.load(grad_summed + start + at, inside, other=0.0).to(tl.float32)
        z = z.to(grad_residual.dtype.element_ty)
        tl.store(grad_residual + start + at, z, inside)
        if ROW_SCALE:
            z = (z.to(tl.float32) * tl.load(row_scale + row).to(tl.float32)).to(z.dtype)
        if DROPS:
            eight: tl.constexpr = summed.dtype.element_ty.primitive_bitwidth == 16
            keep = _kept_in_row(start, threshold, low, high, ALIGNED, eight, COLUMNS)
            z = dropped(z, keep, scale, scale, scale, False)
        tl.store(grad_input + start + at, z.to(grad_input.dtype.element_ty), inside)
    if WEIGHT:
        tl.store(grad_weight + program * columns + at, of_weight, inside)
    if BIAS:
        tl.store(grad_bias + program * columns + at, of_bias, inside)
