"""Deriving keys, in Triton: the Feistel network of `dropkit.random.fold_in`."""

import triton
import triton.language as tl

from dropkit.kernels.gpu.philox import philox_of_words


@triton.jit(do_not_specialize=["count"])
def fold_in(output_ptr, key_ptr, n_ptr, count: tl.int64, BLOCK: tl.constexpr):
    """The key that each number derives from each key; all int64 and contiguous."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    key, n = tl.load(key_ptr + at, inside).to(tl.uint64), tl.load(n_ptr + at, inside).to(tl.uint64)
    low, high = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    left, right = (n >> 32).to(tl.uint32), n.to(tl.uint32)
    zero = tl.zeros_like(low)
    for r in tl.static_range(4):
        word, _, _, _ = philox_of_words(right, zero, zero + r, zero + 1, low, high)
        left, right = right, left ^ word
    tl.store(output_ptr + at, ((left.to(tl.uint64) << 32) | right.to(tl.uint64)).to(tl.int64), inside)
