"""The largest memory of torch's tensors during a call, which torch's profiler observes, and that of a prediction."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from dropkit.mc.prediction import AnyPrediction


def peak_memory(call: Callable[[], object]) -> int:
    """Run a call, and return the largest number of bytes that tensors of the CPU took beyond those from before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as observed:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        observed.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted((event["ts"], index) for index, event in enumerate(events) if event.get("name") == "[memory]")
    sizes: dict[int, int] = {}
    total = largest = 0
    for _, index in changes:
        arguments = events[index]["args"]
        address, change = arguments["Addr"], arguments["Bytes"]
        if change > 0:
            sizes[address] = change
        else:
            change = -sizes.pop(address, 0)  # nothing for a tensor from before
        total += change
        largest = max(largest, total)
    return largest


def bytes_of(prediction: AnyPrediction) -> int:
    """The bytes of the tensors of a prediction."""
    tensors = [*prediction.measures.values(), *prediction.standard_error.values(), prediction.sample_counts]
    return sum(tensor.nbytes for tensor in tensors) + (0 if prediction.plain is None else prediction.plain.nbytes)
