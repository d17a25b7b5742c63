"""Dropout, addition and normalisation of rows in one kernel, and its gradient, in Triton."""

import triton
import triton.language as tl

from dropkit.kernels.gpu.philox import VARYING, double, dropped, kept, key_words, rounded_sum, word


@triton.jit
def _kept_in_row(
    first, threshold, low, high, block0, ALIGNED: tl.constexpr, EIGHT: tl.constexpr, COLUMNS: tl.constexpr
):
    """Whether each element of a row is kept; mask indices are consecutive from `first` on."""
    if ALIGNED:
        keep = kept(first, threshold, low, high, block0, EIGHT, COLUMNS, [COLUMNS])
    else:
        keep = word(first + tl.arange(0, COLUMNS).to(tl.int64), low, high, block0) >= threshold.to(tl.uint32)
    return keep


@triton.jit(do_not_specialize=(*VARYING, "eps"))
def forward(
    output_ptr,
    summed_ptr,
    mean_ptr,
    rstd_ptr,
    input_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    row_scale_ptr,
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
    """One row a program; rows are contiguous. `rstd` is the reciprocal of the standard deviation."""
    row = tl.program_id(0).to(tl.int64)
    start = row * columns
    at = tl.arange(0, COLUMNS)
    inside = at < columns
    z = tl.load(input_ptr + start + at, inside, other=0.0)
    residual = tl.load(residual_ptr + start + at, inside, other=0.0)
    if DROPS:
        eight: tl.constexpr = input_ptr.dtype.element_ty.primitive_bitwidth == 16
        low, high, block0 = key_words(key, KEY_IN_MEMORY)
        keep = _kept_in_row(start, threshold, low, high, block0, ALIGNED, eight, COLUMNS)
        z = dropped(z, keep, double(scale), None, None, False).to(z.dtype)
    if ROW_SCALE:
        z = (z.to(tl.float32) * tl.load(row_scale_ptr + row).to(tl.float32)).to(z.dtype)
    z = rounded_sum(z, residual)
    tl.store(summed_ptr + start + at, z, inside)
    y = z.to(tl.float32)
    if CENTRED:
        mean = tl.sum(y, 0) / columns
        tl.store(mean_ptr + row, mean)
        y = tl.where(inside, y - mean, 0.0)
    rstd = 1.0 / tl.sqrt_rn(tl.sum(y * y, 0) / columns + double(eps).to(tl.float32))
    tl.store(rstd_ptr + row, rstd)
    y *= rstd
    if WEIGHT:
        y *= tl.load(weight_ptr + at, inside, other=0.0).to(tl.float32)
    if BIAS:
        y += tl.load(bias_ptr + at, inside, other=0.0).to(tl.float32)
    tl.store(output_ptr + start + at, y.to(output_ptr.dtype.element_ty), inside)


@triton.jit
def _normed(pointers, inside, mean, rstd, CENTRED: tl.constexpr):
    """A row without mean and scale, in float32; 0 behind its end."""
    y = tl.load(pointers, inside, other=0.0).to(tl.float32)
    if CENTRED:
        y = tl.where(inside, y - mean, 0.0)
    return y * rstd


@triton.jit(do_not_specialize=VARYING)
def backward(
    grad_input_ptr,
    grad_residual_ptr,
    grad_weight_ptr,
    grad_bias_ptr,
    grad_output_ptr,
    grad_summed_ptr,
    summed_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    row_scale_ptr,
    key,
    threshold: tl.uint32,
    scale: tl.int64,
    rows: tl.int64,
    columns: tl.int64,
    rows_per_program: tl.int64,
    KEY_IN_MEMORY: tl.constexpr,
    GRAD_SUMMED: tl.constexpr,
    DROPS: tl.constexpr,
    ALIGNED: tl.constexpr,
    CENTRED: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    ROW_SCALE: tl.constexpr,
    HALVES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Several rows a program, which writes its sums for the gradients of weight and bias to a row of float32.

    HALVES: two programs share these rows, since the sums of all columns do not fit the registers of one.
    """
    halves: tl.constexpr = 2 if HALVES else 1
    program, half = (tl.program_id(0) // halves).to(tl.int64), tl.program_id(0) % halves
    at = half * COLUMNS + tl.arange(0, COLUMNS)
    inside = at < columns
    if HALVES:
        away = (1 - half) * COLUMNS + tl.arange(0, COLUMNS)
        there = away < columns
    low, high, block0 = key_words(key, KEY_IN_MEMORY)
    weight_sum = tl.zeros([COLUMNS], tl.float32)
    bias_sum = tl.zeros([COLUMNS], tl.float32)
    if WEIGHT and not HALVES:
        w = tl.load(weight_ptr + at, inside, other=0.0).to(tl.float32)
    first = program * rows_per_program
    for row in range(first, tl.minimum(first + rows_per_program, rows)):
        start = row * columns
        rstd = tl.load(rstd_ptr + row)
        mean = tl.load(mean_ptr + row) if CENTRED else rstd
        if HALVES:
            # The columns of the other program count for the sums, too.
            y2 = _normed(summed_ptr + start + away, there, mean, rstd, CENTRED)
            g2 = tl.load(grad_output_ptr + start + away, there, other=0.0).to(tl.float32)
            if WEIGHT:
                g2 *= tl.load(weight_ptr + away, there, other=0.0).to(tl.float32)
            by_y2, by_12 = tl.sum(g2 * y2, 0), tl.sum(g2, 0)
        y = _normed(summed_ptr + start + at, inside, mean, rstd, CENTRED)
        g = tl.load(grad_output_ptr + start + at, inside, other=0.0).to(tl.float32)
        weight_sum += g * y
        bias_sum += g
        if WEIGHT:
            if HALVES:  # no registers are left to keep it
                w = tl.load(weight_ptr + at, inside, other=0.0).to(tl.float32)
            g *= w
        by_y, by_1 = tl.sum(g * y, 0), tl.sum(g, 0)
        if HALVES:
            by_y, by_1 = by_y + by_y2, by_1 + by_12
        z = g - y * (by_y / columns)
        if CENTRED:
            z -= by_1 / columns
        z *= rstd
        if GRAD_SUMMED:
            z += tl.load(grad_summed_ptr + start + at, inside, other=0.0).to(tl.float32)
        z = z.to(grad_residual_ptr.dtype.element_ty)
        tl.store(grad_residual_ptr + start + at, z, inside)
        if ROW_SCALE:
            z = (z.to(tl.float32) * tl.load(row_scale_ptr + row).to(tl.float32)).to(z.dtype)
        if DROPS:
            eight: tl.constexpr = summed_ptr.dtype.element_ty.primitive_bitwidth == 16
            keep = _kept_in_row(start + half * COLUMNS, threshold, low, high, block0, ALIGNED, eight, COLUMNS)
            z = dropped(z, keep, double(scale), None, None, False)
        tl.store(grad_input_ptr + start + at, z.to(grad_input_ptr.dtype.element_ty), inside)
    if WEIGHT:
        tl.store(grad_weight_ptr + program * columns + at, weight_sum, inside)
    if BIAS:
        tl.store(grad_bias_ptr + program * columns + at, bias_sum, inside)
