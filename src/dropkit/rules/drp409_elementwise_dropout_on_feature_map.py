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
from dropkit.lint.semantic.data_flow import beside, operation, origins
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.expressions import argument
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Default, Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_CONVOLUTIONS = frozenset(
    "torch.nn." + name
    for name in ("Conv2d", "Conv3d", "ConvTranspose2d", "ConvTranspose3d", "LazyConv2d", "LazyConv3d")
)
_MODULE, _FUNCTION = "torch.nn.Dropout", "torch.nn.functional.dropout"


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.LAYER, DropoutForm.FUNCTION, DropoutForm.APPLICATION):
        if dropout.name not in (_MODULE, _FUNCTION):
            continue
        if dropout.form is DropoutForm.LAYER:
            before = beside(source, dropout.call, -1)
            is_wrong = before is not None and _is_wide(source, before)
        else:
            is_wrong = _drops_convolution(source, dropout)
        if is_wrong:
            yield Violation(dropout.call)


def _drops_convolution(source: SourceFile, dropout: DropoutCall) -> bool:
    """Whether the input of `dropout` is the output of a convolution."""
    if dropout.input is None:
        return False
    before = [operation(source, origin) if origin else None for origin in origins(source, dropout.input) or ()]
    return bool(before) and all(
        applied is not None and applied.layers and all(_is_wide(source, layer) for layer in applied.layers)
        for applied in before
    )


def _is_wide(source: SourceFile, layer: ast.Call) -> bool:
    """Whether `layer` is a convolution with a kernel of more than one pixel."""
    name = source.called(layer)
    if name not in _CONVOLUTIONS:
        return False
    size = argument(layer, 1 if name.startswith("torch.nn.Lazy") else 2, "kernel_size")
    if isinstance(size, ast.Tuple):
        return not all(map(_is_one, size.elts))
    return size is not None and not _is_one(size)


def _is_one(size: ast.expr) -> bool:
    return isinstance(size, ast.Constant) and size.value == 1


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        for visit in site.visits_in(Phase.TRAIN):
            elementwise = visit.is_active and visit.mask_shape == visit.shape and len(visit.shape) >= 4
            if elementwise and visit.origin.layer.startswith("Conv"):
                yield TraceViolation(site)
                break


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
