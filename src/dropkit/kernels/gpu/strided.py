"""Walks over memory, in Triton: one kernel for what is contiguous, one for any strides."""

import triton
import triton.language as tl

from dropkit.kernels.gpu.philox import VARYING, dropped, halves, kept, rounded_sum, word

# What coins do along the innermost dimension of memory: all the same, four to a block, or any.
ONE, FOURS, ANY = (tl.constexpr(kind) for kind in range(3))


@triton.jit(do_not_specialize=[*VARYING, "base", "count"])
def flat(
    output,
    input,
    add,
    key,
    threshold: tl.uint32,
    scale: tl.int64,
    shift: tl.int64,
    fill: tl.int64,
    base: tl.int64,
    count: tl.int64,
    KEY_IN_MEMORY: tl.constexpr,
    AFFINE: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All tensors contiguous, one coin an element, `base` a multiple of 4."""
    start = tl.program_id(0).to(tl.int64) * BLOCK
    low, high = halves(key, KEY_IN_MEMORY)
    eight: tl.constexpr = input.dtype.element_ty.primitive_bitwidth == 16
    keep = kept(base + start, threshold, low, high, eight, BLOCK, [BLOCK])
    at = tl.arange(0, BLOCK)
    # A mask on every load would keep the loads of odd counts from being wide.
    if count - start >= BLOCK:
        y = dropped(tl.load(input + start + at), keep, scale, shift, fill, AFFINE).to(output.dtype.element_ty)
        if ADD:
            y = rounded_sum(y, tl.load(add + start + at))
        tl.store(output + start + at, y)
    else:
        inside = at < (count - start).to(tl.int32)
        y = dropped(tl.load(input + start + at, inside), keep, scale, shift, fill, AFFINE).to(output.dtype.element_ty)
        if ADD:
            y = rounded_sum(y, tl.load(add + start + at, inside))
        tl.store(output + start + at, y, inside)


@triton.jit
def _of_row(row, size, input_stride, output_stride, step, from_input, from_output, coin):
    """Take the innermost of the outer dimensions that are left off a row's number."""
    rest = row // size
    here = row - rest * size
    return rest, from_input + here * input_stride, from_output + here * output_stride, coin + here * step


# What says nothing of how memory is read: a kernel serves all of it.
_SIZES = ["base", "rows", "step", *(f"{name}{place}" for name in ("size", "step") for place in range(1, 5))]


@triton.jit(do_not_specialize=[*VARYING, *_SIZES])
def tiles(
    output,
    input,
    key,
    threshold: tl.uint32,
    scale: tl.int64,
    shift: tl.int64,
    fill: tl.int64,
    base: tl.int64,
    rows: tl.int64,
    columns: tl.int64,
    input_stride,
    output_stride,
    step: tl.int64,
    size1: tl.int64, input_stride1: tl.int64, output_stride1: tl.int64, step1: tl.int64,
    size2: tl.int64, input_stride2: tl.int64, output_stride2: tl.int64, step2: tl.int64,
    size3: tl.int64, input_stride3: tl.int64, output_stride3: tl.int64, step3: tl.int64,
    size4: tl.int64, input_stride4: tl.int64, output_stride4: tl.int64, step4: tl.int64,
    KEY_IN_MEMORY: tl.constexpr,
    AFFINE: tl.constexpr,
    KIND: tl.constexpr,
    OUTER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Any strides: rows are places in up to four outer dimensions, the last of them fastest, columns in one more.

    The columns' strides are not annotated, so that Triton compiles for those that are 1.
    """
    across = tl.cdiv(columns, COLUMNS)
    tile = tl.program_id(0).to(tl.int64)
    row = tile // across * ROWS + tl.arange(0, ROWS).to(tl.int64)
    column = tile % across * COLUMNS + tl.arange(0, COLUMNS).to(tl.int64)
    low, high = halves(key, KEY_IN_MEMORY)
    zero = tl.zeros([ROWS], tl.int64)
    rest, at, to, coin = row, zero, zero, zero + base
    if OUTER > 3:
        rest, at, to, coin = _of_row(rest, size4, input_stride4, output_stride4, step4, at, to, coin)
    if OUTER > 2:
        rest, at, to, coin = _of_row(rest, size3, input_stride3, output_stride3, step3, at, to, coin)
    if OUTER > 1:
        rest, at, to, coin = _of_row(rest, size2, input_stride2, output_stride2, step2, at, to, coin)
    if OUTER > 0:
        rest, at, to, coin = _of_row(rest, size1, input_stride1, output_stride1, step1, at, to, coin)
    if KIND == ONE:
        keep = (word(coin, low, high) >= threshold.to(tl.uint32))[:, None]
    elif KIND == FOURS:
        eight: tl.constexpr = input.dtype.element_ty.primitive_bitwidth == 16
        first = (coin + tile % across * COLUMNS)[:, None]
        keep = kept(first, threshold, low, high, eight, COLUMNS, [ROWS, COLUMNS])
    else:
        keep = word(coin[:, None] + column[None, :] * step, low, high) >= threshold.to(tl.uint32)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    x = tl.load(input + at[:, None] + column[None, :] * input_stride, inside)
    y = dropped(x, keep, scale, shift, fill, AFFINE).to(output.dtype.element_ty)
    tl.store(output + to[:, None] + column[None, :] * output_stride, y, inside)
