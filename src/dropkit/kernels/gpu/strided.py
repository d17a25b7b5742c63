"""The kernels of dropout and noise, in Triton: one for contiguous tensors, one for any strides.

EFFECT is what a random word does to an element: keep and "scale" it or drop it; the same with all four parameters,
"affine"; or give it a "normal" or "uniform" number, whose factor and term take the places of `scale` and `shift`.
"""

import triton
import triton.language as tl

from dropkit.kernels.gpu.numbers import numbers
from dropkit.kernels.gpu.philox import (
    VARYING,
    consecutive_words,
    dropped,
    key_words,
    loaded_words,
    pairs_of_words,
    philox,
    rounded_sum,
    word,
)
from dropkit.kernels.gpu.rates import numbers_of

# Mask indices along the innermost dimension of memory: one for all, consecutive from a multiple of 4 on, multiples of 4
# while those of the first outer dimension are consecutive, or any.
SHARED, CONSECUTIVE, ACROSS, ANY = (tl.constexpr(kind) for kind in range(4))


@triton.jit
def _changed(x, words, threshold, scale, shift, fill, EFFECT: tl.constexpr):
    """The elements after the effect of their words, in the arithmetic type: float64 for float64, else float32."""
    if EFFECT == "scale" or EFFECT == "affine":
        y = dropped(x, words >= threshold, scale, shift, fill, EFFECT == "affine")
    else:
        if words.numel == x.numel:
            # NaN stays NaN whatever its number. What follows from x is computed in the thread that has x; otherwise
            # threads would exchange words and numbers through shared memory.
            words = tl.where(x == x, words, 0)
        arithmetic: tl.constexpr = tl.float64 if x.dtype == tl.float64 else tl.float32
        number = numbers(words, EFFECT, arithmetic)
        y = x.to(arithmetic) * (number * scale.to(arithmetic) + 1.0) + number * shift.to(arithmetic)
    return y


@triton.jit(do_not_specialize=[*VARYING, "mask_offset", "count"])
def flat(
    output_ptr,
    input_ptr,
    other_ptr,
    key,
    rate_ptr,
    threshold: tl.uint32,
    scale: tl.int64,
    shift: tl.int64,
    fill: tl.int64,
    mask_offset: tl.int64,
    count: tl.int64,
    KEY_IN_MEMORY: tl.constexpr,
    FUNCTION: tl.constexpr,
    EFFECT: tl.constexpr,
    OTHER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All tensors contiguous, a mask element for each element, `mask_offset` a multiple of 4.

    OTHER: what `other_ptr` is: "added" is added to the output, "kept" is where the mask goes, "" is not used.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK
    left = count - start
    numbers = numbers_of(rate_ptr, threshold, scale, shift, fill, FUNCTION)
    output_ptr, input_ptr, other_ptr = output_ptr + start, input_ptr + start, other_ptr + start
    first, words_of_key = mask_offset + start, key_words(key, KEY_IN_MEMORY)
    # A mask would keep reads of odd counts from being wide, and takes about a sixth of the instructions.
    if left >= BLOCK:
        _flat_block(output_ptr, input_ptr, other_ptr, first, words_of_key, numbers, None, EFFECT, OTHER, BLOCK)
    else:
        _flat_block(
            output_ptr, input_ptr, other_ptr, first, words_of_key, numbers, left.to(tl.int32), EFFECT, OTHER, BLOCK
        )


@triton.jit
def _flat_block(
    output_ptr,
    input_ptr,
    other_ptr,
    first,
    words_of_key,
    numbers,
    left,
    EFFECT: tl.constexpr,
    OTHER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The block at the pointers, whose first mask index is `first`: `left` elements of it, or all if None."""
    low, high, block0 = words_of_key
    threshold, scale, shift, fill = numbers
    bits: tl.constexpr = input_ptr.dtype.element_ty.primitive_bitwidth
    parts: tl.constexpr = 2 if bits == 64 else 1
    for part in tl.static_range(parts):
        at = tl.arange(0, BLOCK // parts)
        if parts == 2:
            # A thread has the words of four doubles, and loads two of them at a time.
            at = at // 2 * 4 + at % 2 + 2 * part
        inside = None if left is None else at < left
        # The loads come first, and memory answers while the words are computed.
        x = tl.load(input_ptr + at, inside)
        if OTHER == "added":
            added = tl.load(other_ptr + at, inside)
        if parts == 2:
            words = pairs_of_words(first, low, high, block0, part, BLOCK)
        else:
            words = consecutive_words(first, low, high, block0, bits == 16, BLOCK, [BLOCK])
        y = _changed(x, words, threshold, scale, shift, fill, EFFECT).to(output_ptr.dtype.element_ty)
        if OTHER == "added":
            y = rounded_sum(y, added)
        tl.store(output_ptr + at, y, inside)
        if OTHER == "kept":
            # As many neighbours a thread as `x` has; by default it would be more bools, from other threads.
            pointers = tl.max_contiguous(other_ptr + at, 128 // bits)
            tl.store(pointers, words >= threshold, inside)


@triton.jit
def _split_row(row, size, input_stride, output_stride, mask_stride, key_stride, src, dst, index, key):
    """Split the coordinate in the next outer dimension off a row's number, and add its part to the four positions."""
    rest = row // size
    coordinate = row - rest * size
    src += coordinate * input_stride
    dst += coordinate * output_stride
    return rest, src, dst, index + coordinate * mask_stride, key + coordinate * key_stride


# Sizes that do not change how memory is read: one compiled kernel serves all their values.
_SIZES = ["mask_offset", "rows", "mask_stride", "key_stride"]
_SIZES += [f"{name}{place}" for name in ("size", "mask_stride", "key_stride") for place in range(1, 5)]


@triton.jit(do_not_specialize=[*VARYING, *_SIZES])
def tiles(
    output_ptr,
    input_ptr,
    key,
    rate_ptr,
    threshold: tl.uint32,
    scale: tl.int64,
    shift: tl.int64,
    fill: tl.int64,
    mask_offset: tl.int64,
    rows: tl.int64,
    columns: tl.int64,
    input_stride, output_stride, mask_stride: tl.int64, key_stride: tl.int64,
    size1: tl.int64, input_stride1: tl.int64, output_stride1: tl.int64, mask_stride1: tl.int64, key_stride1: tl.int64,
    size2: tl.int64, input_stride2: tl.int64, output_stride2: tl.int64, mask_stride2: tl.int64, key_stride2: tl.int64,
    size3: tl.int64, input_stride3: tl.int64, output_stride3: tl.int64, mask_stride3: tl.int64, key_stride3: tl.int64,
    size4: tl.int64, input_stride4: tl.int64, output_stride4: tl.int64, mask_stride4: tl.int64, key_stride4: tl.int64,
    KEY_IN_MEMORY: tl.constexpr,
    KEYS: tl.constexpr,
    FUNCTION: tl.constexpr,
    EFFECT: tl.constexpr,
    KIND: tl.constexpr,
    OUTER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Any strides. Rows are places in up to four outer dimensions, the last of them fastest; columns are the inner one.

    The columns' memory strides are not annotated, so that Triton compiles specially for a stride of 1. With KEYS, a row
    has a key in memory, or each element if KIND is ANY. If KIND is ACROSS, a row is four places in the first outer
    dimension, which is the fastest then, and `rows` counts those: each element of it has its own Philox block.
    """
    threshold, scale, shift, fill = numbers_of(rate_ptr, threshold, scale, shift, fill, FUNCTION)
    across = tl.cdiv(columns, COLUMNS)
    tile = tl.program_id(0).to(tl.int64)
    row = tile // across * ROWS + tl.arange(0, ROWS).to(tl.int64)
    column = tile % across * COLUMNS + tl.arange(0, COLUMNS).to(tl.int64)
    zero = tl.zeros([ROWS], tl.int64)
    rest, src, dst, index, at = row, zero, zero, zero + mask_offset, zero
    if KIND == ACROSS:
        fours = tl.cdiv(size1, 4)
        rest, src, dst, index, at = _split_row(
            row, fours, 4 * input_stride1, 4 * output_stride1, 4 * mask_stride1, key_stride1, src, dst, index, at
        )
        place = 4 * (row - rest * fours)
    if OUTER > 3:
        rest, src, dst, index, at = _split_row(
            rest, size4, input_stride4, output_stride4, mask_stride4, key_stride4, src, dst, index, at
        )
    if OUTER > 2:
        rest, src, dst, index, at = _split_row(
            rest, size3, input_stride3, output_stride3, mask_stride3, key_stride3, src, dst, index, at
        )
    if OUTER > 1:
        rest, src, dst, index, at = _split_row(
            rest, size2, input_stride2, output_stride2, mask_stride2, key_stride2, src, dst, index, at
        )
    if OUTER > 0 and KIND != ACROSS:
        rest, src, dst, index, at = _split_row(
            rest, size1, input_stride1, output_stride1, mask_stride1, key_stride1, src, dst, index, at
        )
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    if KIND != SHARED and KIND != CONSECUTIVE:
        index = index[:, None] + column[None, :] * mask_stride
    if not KEYS:
        low, high, block0 = key_words(key, KEY_IN_MEMORY)
    elif KIND == ANY:
        low, high, block0 = loaded_words(key + at[:, None] + column[None, :] * key_stride, inside)
    else:
        low, high, block0 = loaded_words(key + at, row < rows)
    if KEYS and KIND != SHARED and KIND != ANY:
        low, high, block0 = low[:, None], high[:, None], block0[:, None]
    src, dst = src[:, None] + column[None, :] * input_stride, dst[:, None] + column[None, :] * output_stride
    if KIND == ACROSS:
        four_words = philox(block0 + (index >> 2).to(tl.uint64), low, high)
        for lane in tl.static_range(4):
            here = inside & (place[:, None] + lane < size1)
            x = tl.load(input_ptr + src + lane * input_stride1, here)
            y = _changed(x, four_words[lane], threshold, scale, shift, fill, EFFECT).to(output_ptr.dtype.element_ty)
            tl.store(output_ptr + dst + lane * output_stride1, y, here)
    else:
        if KIND == SHARED:
            words = word(index, low, high, block0)[:, None]
        elif KIND == CONSECUTIVE:
            eight: tl.constexpr = input_ptr.dtype.element_ty.primitive_bitwidth == 16
            first = (index + tile % across * COLUMNS)[:, None]
            words = consecutive_words(first, low, high, block0, eight, COLUMNS, [ROWS, COLUMNS])
        else:
            words = word(index, low, high, block0)
        x = tl.load(input_ptr + src, inside)
        y = _changed(x, words, threshold, scale, shift, fill, EFFECT).to(output_ptr.dtype.element_ty)
        tl.store(output_ptr + dst, y, inside)
