"""Do transposed and channels_last inputs cost more than contiguous ones?

The ratio is dropkit's time for the named layout as a multiple of its own time for a contiguous input of the same shape:
lower is better.
"""

import torch
from side_by_side import Row, relative, threads

from dropkit.functional import dropout, dropout2d


def rows() -> list[Row]:
    images = torch.randn(16, 64, 128, 128)
    last = images.to(memory_format=torch.channels_last)
    small = torch.randn(64, 512, 7, 7)
    small_last = small.to(memory_format=torch.channels_last)
    matrix = torch.randn(4096, 4096)
    cases = {
        "channels_last (16, 64, 128, 128)": (lambda: dropout(last), lambda: dropout(images)),
        "channels_last (64, 512, 7, 7)": (lambda: dropout(small_last), lambda: dropout(small)),
        "transposed (4096, 4096)": (lambda: dropout(matrix.t()), lambda: dropout(matrix)),
        "channels_last, Dropout2d (16, 64, 128, 128)": (lambda: dropout2d(last), lambda: dropout2d(images)),
    }
    table = []
    for number in (1, 2):
        with threads(number):
            table += [
                relative(f"{case}, threads: {number}", ours, theirs, "<= 1.5", runs=15)
                for case, (ours, theirs) in cases.items()
            ]
    return table
