"""Elementwise dropout on a feature map of a convolution.

It regularises less than its rate suggests: neighbours in a feature map are nearly equal, so the next convolution can
recover a dropped value from them (Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015).
`docs/element-or-channel.md` compares the two. Use `nn.Dropout2d`, which drops whole channels, or `DropBlock`, which
drops squares.

Found behind a convolution, also with normalization, activations and pooling between. Not reported are 1x1 convolutions,
which act like linear layers, and maps that are flattened or pooled to one pixel next.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import ACTIVATION_KINDS, BATCH_NORMS
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST, readers
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls, dropout_kind, operations_before
from dropkit.lint.semantic.expressions import argument, last_part, literal
from dropkit.lint.semantic.layers import Operation, folded, made, operation, operations
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import AFTER, BEFORE, adjacent_layer
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_CONVOLUTIONS = frozenset(
    "torch.nn." + name
    for name in ("Conv2d", "Conv3d", "ConvTranspose2d", "ConvTranspose3d", "LazyConv2d", "LazyConv3d")
)
# Layers and functions, by last name in lower case without underscores, whose output is the same map, or a smaller one.
_KEEP_THE_MAP = frozenset(
    name.lower()
    for name in (
        *ACTIVATION_KINDS, *map(last_part, BATCH_NORMS), "InstanceNorm2d", "InstanceNorm3d", "GroupNorm", "MaxPool2d",
        "MaxPool3d", "AvgPool2d", "AvgPool3d", "LocalResponseNorm", "Softmax2d", "Upsample", "PixelShuffle",
    )
)  # fmt: skip
# What takes neighbours together afterwards, so that single elements are single features.
_ENDS_THE_MAP = frozenset(
    {"flatten", "view", "reshape", "linear", "unflatten", "mean", "adaptiveavgpool2d", "adaptiveavgpool3d",
     "adaptivemaxpool2d", "adaptivemaxpool3d", "lazylinear", "bilinear", "rearrange", "squeeze"}
)  # fmt: skip
# Layers between a convolution and its dropout that are looked through.
_FARTHEST = 8


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.LAYER, DropoutForm.APPLICATION):
        if (
            dropout_kind(source, dropout.call) == "Dropout"
            and all(_is_map(source, applied) for applied in operations_before(source, dropout))
            and not _is_ended(source, dropout)
        ):
            yield Violation(dropout.call)


def _is_map(source: SourceFile, applied: Operation | None) -> bool:
    """Whether the output of an operation is that of a wide convolution, perhaps normalized, activated and pooled."""
    for _ in range(_FARTHEST):
        if applied is None:
            return False
        if applied.layers and all(source.called(layer) in _CONVOLUTIONS for layer in applied.layers):
            return all(_is_wide(source, layer) for layer in applied.layers)
        if folded(applied.torch_name) not in _KEEP_THE_MAP:
            return False
        if applied.input is None or applied.call in applied.layers:
            applied = made(source, adjacent_layer(source, applied.call, BEFORE))
        else:
            earlier = operations(source, applied.input)
            applied = earlier[0] if len(earlier) == 1 else None
    return False


def _is_ended(source: SourceFile, dropout: DropoutCall) -> bool:
    """Whether the dropped map is flattened, or averaged to one pixel, next."""
    if dropout.form is DropoutForm.LAYER:
        after = adjacent_layer(source, dropout.call, AFTER)
        return folded(last_part(source.called(after) or "")) in _ENDS_THE_MAP
    statement = source.statement(dropout.call)
    reads: list[ast.expr] = [dropout.call]
    if isinstance(statement, ast.Assign) and statement.value is dropout.call:
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        reads += [read for name in names for read in readers(source, statement, name)][:MOST]
    return any(_ends(source, source.parent(read)) for read in reads)


def _ends(source: SourceFile, user: ast.AST | None) -> bool:
    if isinstance(user, ast.Attribute):
        return folded(user.attr) in _ENDS_THE_MAP
    applied = operation(source, user)
    return applied is not None and folded(applied.torch_name) in _ENDS_THE_MAP


def _is_wide(source: SourceFile, layer: ast.Call) -> bool:
    """Whether `layer` is a convolution with a kernel of more than one pixel."""
    size = argument(layer, 1 if source.last_name(layer).startswith("Lazy") else 2, "kernel_size")
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
    message="elementwise dropout on a feature map is weak",
    severity=Severity.INFO,
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1),
-    nn.Dropout(0.2),  # DRP409
+    nn.Dropout2d(0.2),
    nn.Conv2d(8, 8, 3, padding=1),
)
model.eval()(torch.randn(2, 3, 8, 8))
""",
        ),
    ),
)
