"""How much faster is a forward call than PyTorch's?

`dropkit.functional.dropout(x)` is compared with `torch.nn.functional.dropout(x)`. The ratio says how many times faster
dropkit is. Outputs above 32 MB (2**24 float32 elements are 67 MB) are mapped anew at every call, and the system zeroes
them page by page, which takes longer than the dropout: see the section on kept memory.
"""

import torch
import torch.nn.functional as F
from side_by_side import Row, faster, has_avx512, threads

from dropkit.functional import dropout

TARGETS = {(1, 20): 13, (1, 24): 18, (1, 26): 18, (2, 20): 25, (2, 24): 35, (2, 26): 35}


def rows() -> list[Row]:
    share = 1 if has_avx512() else 0.5
    table = []
    for (number, power), target in TARGETS.items():
        x = torch.randn(2**power)
        with threads(number):
            case = f"float32, 2**{power} elements, threads: {number}"
            table.append(faster(case, lambda x=x: dropout(x), lambda x=x: F.dropout(x), f">= {target * share}", runs=7))
    for number in (1, 2):
        x = torch.randn(2**24).bfloat16()
        with threads(number):
            case = f"bfloat16, 2**24 elements, threads: {number}"
            table.append(
                faster(case, lambda x=x: dropout(x), lambda x=x: F.dropout(x), ">= 20" if number == 2 else "", runs=7)
            )
    return table
