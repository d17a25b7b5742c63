"""Elementwise dropout directly on the output of a convolution.

It regularises less than its rate suggests: neighbours in a feature map are nearly equal, so the next convolution can
recover a dropped value from them (Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015).
Use `nn.Dropout2d`, which drops whole channels, or `DropBlock`, which drops squares.

1x1 convolutions are not reported: they act like linear layers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_calls, operations_before
from dropkit.lint.semantic.expressions import argument, literal
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Default, Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_CONVOLUTIONS = frozenset(
    "torch.nn." + name
    for name in ("Conv2d", "Conv3d", "ConvTranspose2d", "ConvTranspose3d", "LazyConv2d", "LazyConv3d")
)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.LAYER, DropoutForm.APPLICATION):
        if (
            dropout.kind == "Dropout"
            and not dropout.has_noise_shape
            and all(
                applied is not None and applied.layers and all(_is_wide(source, layer) for layer in applied.layers)
                for applied in operations_before(source, dropout)
            )
        ):
            yield Violation(dropout.call)


def _is_wide(source: SourceFile, layer: ast.Call) -> bool:
    """Whether `layer` is a convolution with a kernel of more than one pixel."""
    name = source.called(layer)
    if name not in _CONVOLUTIONS:
        return False
    size = argument(layer, 1 if name.startswith("torch.nn.Lazy") else 2, "kernel_size")
    sizes = size.elts if isinstance(size, ast.Tuple) else [size]
    return size is not None and not all(literal(length) == 1 for length in sizes)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        if any(
            visit.is_active
            and visit.mask_shape == visit.shape
            and len(visit.shape) >= 4
            and visit.origin.layer.startswith("Conv")
            for visit in site.visits_in(Phase.TRAIN)
        ):
            yield TraceViolation(site)


RULE = Rule(
    code="DRP409",
    name="elementwise-dropout-on-feature-map",
    message="elementwise dropout right after a convolution is weak",
    severity=Severity.INFO,
    default=Default.OFF,
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            bad="""
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1),
    nn.Dropout(0.2),  # DRP409
    nn.ReLU(),
    nn.Conv2d(8, 8, 3, padding=1),
)
model.eval()(torch.randn(2, 3, 8, 8))
""",
            good="""
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1),
    nn.Dropout2d(0.2),
    nn.ReLU(),
    nn.Conv2d(8, 8, 3, padding=1),
)
model.eval()(torch.randn(2, 3, 8, 8))
""",
        ),
    ),
)
