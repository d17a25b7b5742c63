"""Kernels that write the numbers of words and of rates, by which the GPU's are compared with the reference's."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from dropkit.kernels.gpu.numbers import numbers
from dropkit.kernels.gpu.rates import numbers_of


@triton.jit
def _numbers(output_ptr, words_ptr, distribution: tl.constexpr, dtype: tl.constexpr, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    words = tl.load(words_ptr + at).to(tl.uint32)
    tl.store(output_ptr + at, numbers(words, distribution, dtype))


def numbers_on_gpu(words: Tensor, distribution: str, dtype: torch.dtype) -> Tensor:
    """The numbers of int64 words, of the distribution of this name, as float32 or float64."""
    block = 2**16
    padded = torch.nn.functional.pad(words, (0, -len(words) % block))
    output = torch.empty(len(padded), dtype=dtype)
    in_triton = tl.float64 if dtype == torch.float64 else tl.float32
    _numbers[(len(padded) // block,)](output, padded, distribution, in_triton, block)
    return output[: len(words)]


@triton.jit
def _params(output_ptr, rates_ptr, count, function: tl.constexpr, block: tl.constexpr):
    at = tl.arange(0, block)
    numbers = numbers_of(rates_ptr + at, None, None, None, None, function)
    for place in tl.static_range(4):
        tl.store(output_ptr + place * count + at, numbers[place].to(tl.float64), at < count)


def params_on_gpu(rates: Tensor, function: str) -> Tensor:
    """Threshold, scale, shift and fill at each of 2**n rates, as rows of float64."""
    output = torch.empty(4, len(rates), dtype=torch.float64)
    _params[(1,)](output, rates, len(rates), function, len(rates))
    return output
