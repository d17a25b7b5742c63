"""Functions that all GPU kernels share, in Triton: for NVIDIA and AMD, and for the CPU under Triton's interpreter.

A Philox block has the words of four consecutive mask elements, so where mask indices are consecutive along memory one
block is computed for four elements. Half a round is one 32 x 32 -> 64 bit multiply. Threads share nothing.

Fractions are passed as the 64 bits of a double, since Triton would round them to single precision.
"""

import triton
import triton.language as tl

# Arguments that differ from call to call; Triton must not compile for their values.
VARYING = ("key", "threshold", "scale", "shift", "fill")


@triton.jit
def philox(block, low, high):
    """The four words of a block, uint32. `block` is uint64, the halves of the key are uint32."""
    c0, c1 = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    return philox_of_words(c0, c1, tl.zeros_like(c0), tl.zeros_like(c0), low, high)


@triton.jit
def philox_of_words(c0, c1, c2, c3, low, high):
    """The four words of each counter of four words; all uint32.

    The constants have no names: at every launch Triton checks whether a global has changed, which takes 2 us for each.
    """
    for _ in tl.static_range(10):
        p0, p1 = c0.to(tl.uint64) * 0xD2511F53, c2.to(tl.uint64) * 0xCD9E8D57
        c0, c1 = (p1 >> 32).to(tl.uint32) ^ c1 ^ low, p1.to(tl.uint32)
        c2, c3 = (p0 >> 32).to(tl.uint32) ^ c3 ^ high, p0.to(tl.uint32)
        low += 0x9E3779B9
        high += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def key_words(key, KEY_IN_MEMORY: tl.constexpr):
    """The low and the high word of the key, and the block of mask index 0, uint64."""
    if KEY_IN_MEMORY:
        low, high, block0 = loaded_words(key, None)
    else:
        low, high, block0 = _halves(key.to(tl.uint64), tl.full([], 0, tl.uint64))
    return low, high, block0


@triton.jit
def loaded_words(key_ptr, inside):
    """The same of each key in memory. uint64 numbers are pairs, and single keys int64, with 0 for the block."""
    key = tl.load(key_ptr, inside).to(tl.uint64)
    is_pair: tl.constexpr = key_ptr.dtype.scalar.element_ty == tl.uint64
    return _halves(key, tl.load(key_ptr + 1, inside) if is_pair else key ^ key)


@triton.jit
def _halves(key, block0):
    return key.to(tl.uint32), (key >> 32).to(tl.uint32), block0


@triton.jit
def word(index, low, high, block0):
    """The random word of each mask index, where neighbours do not share a block."""
    w0, w1, w2, w3 = philox(block0 + (index >> 2).to(tl.uint64), low, high)
    lane = (index & 3).to(tl.int32)
    return tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))


@triton.jit
def double(bits):
    """The double that has these 64 bits."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def dropped(x, keep, scale, shift, fill, AFFINE: tl.constexpr):
    """Kept and dropped values, in the arithmetic type: float64 for float64, else float32. The numbers are float64."""
    arithmetic: tl.constexpr = tl.float64 if x.dtype == tl.float64 else tl.float32
    x = x.to(arithmetic)
    if AFFINE:
        return tl.where(keep, x * scale.to(arithmetic) + shift.to(arithmetic), fill.to(arithmetic))
    # The factor is not negative. Dropping first lets the compiler round two numbers to 16 bits at once.
    return tl.where(keep, x, 0.0) * scale.to(arithmetic)


@triton.jit
def rounded_sum(x, y):
    """The sum of two tensors of one type, rounded once to that type."""
    if x.dtype == tl.float64:
        return x + y
    return (x.to(tl.float32) + y.to(tl.float32)).to(x.dtype)


@triton.jit
def kept(first, threshold, low, high, block0, EIGHT: tl.constexpr, COLUMNS: tl.constexpr, SHAPE: tl.constexpr):
    """Whether each of the mask elements of `consecutive_words` is kept."""
    return consecutive_words(first, low, high, block0, EIGHT, COLUMNS, SHAPE) >= threshold.to(tl.uint32)


@triton.jit
def consecutive_words(first, low, high, block0, EIGHT: tl.constexpr, COLUMNS: tl.constexpr, SHAPE: tl.constexpr):
    """The random words of COLUMNS consecutive mask elements from each index in `first` on, int64 multiples of 4.

    EIGHT: a thread takes eight neighbours, which a load of 16 bytes holds of a 16-bit type; else four.
    """
    if EIGHT:
        blocks = block0 + (first >> 2).to(tl.uint64) + 2 * tl.arange(0, COLUMNS // 8).to(tl.uint64)
        a0, a1, a2, a3 = philox(blocks, low, high)
        b0, b1, b2, b3 = philox(blocks + 1, low, high)
        even = tl.join(tl.join(a0, b0), tl.join(a2, b2))
        odd = tl.join(tl.join(a1, b1), tl.join(a3, b3))
    else:
        blocks = block0 + (first >> 2).to(tl.uint64) + tl.arange(0, COLUMNS // 4).to(tl.uint64)
        w0, w1, w2, w3 = philox(blocks, low, high)
        even, odd = tl.join(w0, w2), tl.join(w1, w3)
    return tl.reshape(tl.join(even, odd), SHAPE)


@triton.jit
def pairs_of_words(first, low, high, block0, part, COLUMNS: tl.constexpr):
    """The first two words of each of the blocks of `consecutive_words`, or the last two if `part` is 1."""
    blocks = block0 + (first >> 2).to(tl.uint64) + tl.arange(0, COLUMNS // 4).to(tl.uint64)
    w0, w1, w2, w3 = philox(blocks, low, high)
    pairs = tl.join(w2, w3) if part else tl.join(w0, w1)
    return tl.reshape(pairs, [COLUMNS // 2])
