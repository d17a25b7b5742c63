"""How near is a forward call to the speed of a copy, which moves the same bytes and does nothing?"""

import torch
from side_by_side import Row, relative, threads

from dropkit.functional import dropout


def rows() -> list[Row]:
    return [row for power in (24, 26) for number in (1, 2) for row in of_size(power, number)]


def of_size(power: int, number: int) -> list[Row]:
    """With a new output, as every call makes one, and without, where exactly a copy's bytes are moved."""
    x = torch.randn(2**power)
    y = torch.empty_like(x)
    size, goal = f"float32, 2**{power} elements, threads: {number}", "<= 1.4" if number == 2 else ""
    with threads(number):
        return [
            relative(f"{size}; dropout(x) against y.copy_(x)", lambda: dropout(x), lambda: y.copy_(x), goal),
            relative(f"{size}; in place against y.copy_(x)", lambda: dropout(y, inplace=True), lambda: y.copy_(x)),
            relative(f"{size}; dropout(x) against x.clone()", lambda: dropout(x), lambda: x.clone()),
        ]
