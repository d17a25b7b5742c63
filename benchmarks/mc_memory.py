"""How much memory does `dropkit.mc.predict` need, beside one pass of the model with dropout?

The peaks of the memory of tensors are those that torch's profiler observes, for the models and settings of the section
on the naive loop. The pass is one over a batch as `predict` runs it, of at most 256 inputs, in training mode and
without gradients. The ratio is that of the peaks without what `predict` returns, and without its copy of the inputs,
into which the model may write. For 1000 classes and for pixels the results are large: two numbers for each output,
which hold the sums during the passes. `replay=False` saves what the prefix cache keeps, here 9.4 MB for pixels and 2.4
MB for the transformer. Samples of one input run together as long as none of their tensors holds more than 65,536
numbers.
"""

from __future__ import annotations

import torch
from helpers.peak_memory import bytes_of, peak_memory
from mc_loop import Case, cases
from side_by_side import Row

from dropkit.report.units import in_bytes

# What `predict` runs at once by default.
BATCH = 256


def rows() -> list[Row]:
    return [row(case) for case in cases()]


def row(case: Case) -> Row:
    case.predict()  # imports and caches
    ours = peak_memory(case.predict)
    result = case.predict()
    inputs = case.inputs[:BATCH]
    with torch.no_grad():
        theirs = peak_memory(lambda: case.model.train()(inputs))
    besides = bytes_of(result) + inputs.nbytes
    return Row(case.name, in_bytes(ours), in_bytes(theirs), (ours - besides) / theirs, "<= 1.5")
