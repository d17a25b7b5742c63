"""How close is a forward call to the speed of a copy?

A copy moves the same bytes and computes nothing, so it is the limit for dropout. dropkit is compared with `y.copy_(x)`,
which writes to memory that is there already, and with `x.clone()`, which needs new memory, as dropout does: these
outputs are above 32 MB, so the system maps and zeroes their pages anew at every call. `x.clone()` measures what that
takes in torch; dropkit asks the system for larger pages, which are fewer. The ratio is dropkit's time as a multiple of
the copy's: lower is better.
"""

import torch
from side_by_side import Row, relative, threads

from dropkit.functional import dropout


def rows() -> list[Row]:
    return [row for power in (24, 26) for number in (1, 2) for row in of_size(power, number)]


def of_size(power: int, number: int) -> list[Row]:
    """Compare dropout into a new output, and dropout in place, with copies."""
    x = torch.randn(2**power)
    y = torch.empty_like(x)
    size, goal = f"float32, 2**{power} elements, threads: {number}", "<= 1.4" if number == 2 else ""
    with threads(number):
        return [
            relative(f"{size}; dropout(x), y.copy_(x)", lambda: dropout(x), lambda: y.copy_(x), goal),
            relative(f"{size}; dropout in place, y.copy_(x)", lambda: dropout(y, inplace=True), lambda: y.copy_(x)),
            relative(f"{size}; dropout(x), x.clone()", lambda: dropout(x), lambda: x.clone()),
        ]
