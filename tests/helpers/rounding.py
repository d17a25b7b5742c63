"""Bounds for results that may differ by rounding alone, from how often they are rounded."""

import torch
from torch import Tensor


def rounding(values: Tensor, roundings: int) -> float:
    """Return the largest difference between two computations of `values` that each round `roundings` times.

    One rounding moves a number by at most eps / 2 of its size, so two computations are at most `roundings * eps` of the
    largest number apart; no intermediate result may be larger than the largest value (else pass the intermediates). A
    sum of n terms, in whatever order, is rounded n - 1 times (Higham, "Accuracy and Stability of Numerical Algorithms",
    2002, section 4.2), a dot product n times.
    """
    return roundings * torch.finfo(values.dtype).eps * values.abs().max().item()


def equal_but_for_rounding(result: Tensor, expected: Tensor, roundings: int) -> bool:
    """Compare two computations of one tensor in the same dtype, both of which round `roundings` times."""
    return torch.allclose(result, expected, rtol=0, atol=rounding(expected, roundings))


def equal_in_float32(result: Tensor, expected: Tensor) -> bool:
    """Compare numbers of about 1 that were computed in float64, by ways whose roundings cannot be counted.

    They may differ by one eps of float32, which leaves room for 2**29 roundings; a wrong mask or a missing term changes
    them by thousands of times as much.
    """
    return torch.allclose(result, expected, rtol=0, atol=torch.finfo(torch.float32).eps)
