"""The mask specification in Python integers: slow, and written independently of the kernels."""

from statistics import NormalDist

WORD = 2**32


def philox4x32_10(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, WORD)
        high1, low1 = divmod(0xCD9E8D57 * c2, WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return c0, c1, c2, c3


def halves(number: int) -> tuple[int, int]:
    """Low and high word of 64 bits."""
    high, low = divmod(number % 2**64, WORD)
    return low, high


def word(index: int, key: int, first_block: int = 0) -> int:
    return philox4x32_10((*halves(first_block + index // 4), 0, 0), halves(key))[index % 4]


def keeps(index: int, key: int, p: float, first_block: int = 0) -> bool:
    return word(index, key, first_block) >= round(p * WORD)


def normal(index: int, key: int) -> float:
    """The normal number of mask element `index`: the quantile at the middle of the interval of its word."""
    return NormalDist().inv_cdf((word(index, key) + 0.5) / WORD)


def keep_bits(first: int, n: int, key: int, p: float) -> str:
    """The keep bits of n mask elements as hexadecimal digits, mask index `first` in the lowest bit."""
    return f"{sum(keeps(first + i, key, p) << i for i in range(n)):0{n // 4}x}"


def fold_in(key: int, n: int) -> int:
    """The derived key, as an unsigned number."""
    right, left = halves(n)
    for r in range(4):
        left, right = right, left ^ philox4x32_10((right, 0, r, 1), halves(key))[0]
    return left * WORD + right


def fold_in_torchs_key(seed: int, offset: int, n: int) -> tuple[int, int]:
    """The seed and the offset that torch derives from others: the words of block offset + n."""
    w0, w1, w2, w3 = philox4x32_10((*halves(offset + n), 0, 0), halves(seed))
    return w0 + w1 * WORD, w2 + w3 * WORD
