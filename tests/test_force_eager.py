"""force_eager: compiled code runs uncompiled until the last block of any thread has ended."""

from __future__ import annotations

import torch
from torch._dynamo.testing import CompileCounter

from dropkit.modes import force_eager


def test_compiled_code_runs_uncompiled_until_the_last_block_ends():
    """Blocks that overlap, and end in the order in which they began, leave torch's stance as it was."""
    counter = CompileCounter()
    double = torch.compile(lambda x: x * 2, backend=counter)
    first, second = force_eager(), force_eager()

    first.__enter__()
    second.__enter__()
    double(torch.ones(2))
    first.__exit__(None, None, None)
    double(torch.ones(2))
    inside = counter.frame_count
    second.__exit__(None, None, None)
    double(torch.ones(2))

    assert inside == 0
    assert counter.frame_count == 1
