"""Dropout in training mode inside of an encoder layer in evaluation mode.

Monte Carlo dropout returns the same prediction every time, and the uncertainty that it reports is exactly zero. In
evaluation mode and without gradients, `nn.TransformerEncoderLayer` takes a fused path without dropout: modules inside
of it that were set back to `train()` are not called. Turn the path off with
`torch.backends.mha.set_fastpath_enabled(False)` while sampling.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.rules.rule import Example, Rule, TraceViolation
from dropkit.trace import Trace


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    return (TraceViolation(name) for name in trace.fast_path_layers)


RULE = Rule(
    code="DRP206",
    name="encoder-fast-path",
    message="the fused encoder path skips this layer's dropout",
    severity=Severity.WARNING,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
from torch import nn

model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
-model.eval()
-for module in model.modules():
-    if isinstance(module, nn.Dropout):
-        module.train()
+model.train()
with torch.no_grad():
-    samples = [model(torch.ones(2, 4, 8)) for _ in range(3)]  # all the same
+    samples = [model(torch.ones(2, 4, 8)) for _ in range(3)]
""",
        ),
    ),
)
