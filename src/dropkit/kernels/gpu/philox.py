"""What the GPU kernels have in common, in Triton: for NVIDIA and AMD, and for the CPU under Triton's interpreter.

A Philox block serves four neighbouring coins, so that wherever coins are consecutive along memory one block is computed
for four elements; a half round is one 32 x 32 -> 64 bit multiply. Nothing is shared between threads.

Numbers with a fraction come as the 64 bits of a double, since Triton hands on none.
"""

import triton
import triton.language as tl

# What differs from call to call, and must not be compiled anew.
VARYING = ("key", "threshold", "scale", "shift", "fill")


@triton.jit
def philox(block, low, high):
    """The four words of a block, uint32. `block` is uint64, the halves of the key are uint32.

    Its constants have no names: at every launch Triton looks whether a global has changed, which takes 2 us for each.
    """
    c0, c1 = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    c2, c3 = tl.zeros_like(c0), tl.zeros_like(c0)
    for _ in tl.static_range(10):
        p0, p1 = c0.to(tl.uint64) * 0xD2511F53, c2.to(tl.uint64) * 0xCD9E8D57
        c0, c1 = (p1 >> 32).to(tl.uint32) ^ c1 ^ low, p1.to(tl.uint32)
        c2, c3 = (p0 >> 32).to(tl.uint32) ^ c3 ^ high, p0.to(tl.uint32)
        low += 0x9E3779B9
        high += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def halves(key, KEY_IN_MEMORY: tl.constexpr):
    if KEY_IN_MEMORY:
        key = tl.load(key)
    key = key.to(tl.uint64)
    return key.to(tl.uint32), (key >> 32).to(tl.uint32)


@triton.jit
def word(coin, low, high):
    """The word of each coin, where neighbours do not share a block."""
    w0, w1, w2, w3 = philox((coin >> 2).to(tl.uint64), low, high)
    lane = (coin & 3).to(tl.int32)
    return tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3))


@triton.jit
def double(bits):
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def dropped(x, keep, scale, shift, fill, AFFINE: tl.constexpr):
    """Kept and dropped values, in the type of the arithmetic."""
    arithmetic: tl.constexpr = tl.float64 if x.dtype == tl.float64 else tl.float32
    y = x.to(arithmetic) * double(scale).to(arithmetic)
    if AFFINE:
        y += double(shift).to(arithmetic)
        return tl.where(keep, y, double(fill).to(arithmetic))
    return tl.where(keep, y, 0.0)


@triton.jit
def rounded_sum(x, y):
    """Of two tensors of one type, rounded once to it."""
    if x.dtype == tl.float64:
        return x + y
    return (x.to(tl.float32) + y.to(tl.float32)).to(x.dtype)


@triton.jit
def kept(first, threshold, low, high, EIGHT: tl.constexpr, COLUMNS: tl.constexpr, SHAPE: tl.constexpr):
    """Whether each of COLUMNS consecutive coins is kept, from each of `first` on, int64 multiples of 4.

    EIGHT: a thread takes eight neighbours, as a load of 16 bytes does of a type of two; else four.
    """
    if EIGHT:
        blocks = (first >> 2).to(tl.uint64) + 2 * tl.arange(0, COLUMNS // 8).to(tl.uint64)
        a0, a1, a2, a3 = philox(blocks, low, high)
        b0, b1, b2, b3 = philox(blocks + 1, low, high)
        even = tl.join(tl.join(a0, b0), tl.join(a2, b2))
        odd = tl.join(tl.join(a1, b1), tl.join(a3, b3))
    else:
        blocks = (first >> 2).to(tl.uint64) + tl.arange(0, COLUMNS // 4).to(tl.uint64)
        w0, w1, w2, w3 = philox(blocks, low, high)
        even, odd = tl.join(w0, w2), tl.join(w1, w3)
    return tl.reshape(tl.join(even, odd), SHAPE) >= threshold.to(tl.uint32)
