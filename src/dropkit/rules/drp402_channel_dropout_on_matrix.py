"""Channel dropout beside a linear layer, on an input without channels.

`Dropout1d` zeroes whole samples, without a warning; `Dropout2d` and `Dropout3d` warn and drop single elements, or drop
along the wrong dimension of inputs with more than two. They are made for feature maps, whose second dimension holds
channels, not for matrices of samples and features. Use `nn.Dropout`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from dropkit.catalog import ACTIVATIONS, CHANNEL_KINDS, DROPOUT_MODULES
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST, reads_after
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.edits import swap_kind
from dropkit.lint.semantic.expressions import argument, last_part, literal
from dropkit.lint.semantic.layers import Operation, constructors, operation, operations
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import AFTER, BEFORE, adjacent_layer, end_layer, nearest_layer
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_ELEMENTWISE = {name: name[:-2] for name in CHANNEL_KINDS}
_LINEAR = frozenset({"torch.nn.Linear", "torch.nn.LazyLinear", "torch.nn.Bilinear", "torch.nn.functional.linear"})
# Operations that keep the shape: layers, and functions and methods by the last part of their name.
_SAME_SHAPE = ACTIVATIONS | DROPOUT_MODULES | {"torch.nn.BatchNorm1d", "torch.nn.LayerNorm", "torch.nn.Threshold"}
_SAME_SHAPE_CALLS = frozenset(
    {"relu", "relu_", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "dropout", "softplus", "relu6",
     "mish", "hardswish", "normalize", "layer_norm", "contiguous", "float"}
)  # fmt: skip


def check_source(source: SourceFile) -> Iterator[Violation]:
    dropouts = dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.LAYER, DropoutForm.APPLICATION)
    wrong = [dropout for dropout in dropouts if _drops_channels(dropout) and _has_no_channels(source, dropout)]
    wrong_calls = {dropout.call for dropout in wrong}
    for dropout in wrong:
        fix = swap_kind(source, "Drop elements instead", dropout, wrong_calls, _ELEMENTWISE)
        yield Violation(dropout.call, f"{last_part(dropout.layers[0].name)} on features without channels", fix)


def _drops_channels(dropout: DropoutCall) -> bool:
    return all(layer.kind in CHANNEL_KINDS for layer in dropout.layers)


def _has_no_channels(source: SourceFile, dropout: DropoutCall) -> bool:
    if dropout.form is not DropoutForm.LAYER:
        return _is_matrix(source, dropout.input) or _feeds_linear(source, dropout)
    before = nearest_layer(source, dropout.call, BEFORE, _SAME_SHAPE)
    if before is not None:
        return _makes_matrix(source, before)
    after = nearest_layer(source, dropout.call, AFTER, _SAME_SHAPE)
    return source.called(after) in _LINEAR


def _makes_matrix(source: SourceFile, layer: ast.Call | None) -> bool:
    name = source.called(layer)
    return name in _LINEAR or (name == "torch.nn.Flatten" and layer is not None and not layer.args)


def _is_matrix(source: SourceFile, value: ast.expr | None) -> bool:
    """Whether `value` is certainly a matrix of samples and features, or the result of a linear layer."""
    pending = [value]
    for tensor in pending:
        for applied in operations(source, tensor):
            # Long chains are not followed.
            if applied is None or len(pending) > MOST:
                return False
            makers: Sequence[ast.Call | None] = applied.layers
            keeps_shape = applied.name in _SAME_SHAPE if makers else last_part(applied.name) in _SAME_SHAPE_CALLS
            if keeps_shape and any(adjacent_layer(source, layer, BEFORE) is not None for layer in applied.layers):
                makers = [nearest_layer(source, layer, BEFORE, _SAME_SHAPE) for layer in applied.layers]
            elif keeps_shape:
                pending.append(applied.input)
                continue
            is_matrix = all(_makes_matrix(source, layer) for layer in makers) if makers else _flattens(source, applied)
            if not is_matrix:
                return False
    return True


def _flattens(source: SourceFile, applied: Operation) -> bool:
    """Whether a function or method returns a matrix.

    These are linear, view(n, -1), flatten(1), the mean over two dimensions, pool(x).squeeze().
    """
    call, first = applied.call, 0 if applied.name.startswith(".") else 1
    arguments = call.args[first:]
    match last_part(applied.name), arguments:
        case "view" | "reshape", [ast.Tuple(elts=sizes) | ast.List(elts=sizes)] | sizes:
            return len(sizes) == 2 and not any(isinstance(size, ast.Starred) for size in sizes)
        case "flatten", _:
            return literal(argument(call, first, "start_dim")) == 1 and len(arguments) + len(call.keywords) == 1
        case "mean", _:
            axes = argument(call, first, "dim")
            has_two = isinstance(axes, (ast.Tuple, ast.List)) and len(axes.elts) == 2
            return has_two and argument(call, None, "keepdim") is None
        case "squeeze", [] if first == 0:
            pooled = operation(source, applied.input)
            return pooled is not None and "adaptive" in pooled.name.lower() and "1d" not in pooled.name
        case _:
            return applied.name in _LINEAR


def _feeds_linear(source: SourceFile, dropout: DropoutCall) -> bool:
    """Whether linear layers only use the result, and no convolution or the like shows that the input has channels."""
    statement = source.statement(dropout.call)
    target = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is dropout.call else None
    uses = reads_after(source, target.id, statement) if isinstance(target, ast.Name) else [dropout.call]
    if not (0 < len(uses) <= MOST and all(_enters_linear(source, use) for use in uses)):
        return False
    before = [applied.name.lower() for applied in operations(source, dropout.input) if applied is not None]
    return not any(word in name for name in before for word in ("conv", "pool", "batchnorm2d", "perm"))


def _enters_linear(source: SourceFile, value: ast.expr) -> bool:
    """Whether `value` is passed to a linear layer, or to layers that begin with one."""
    call = source.parent(value)
    if not isinstance(call, ast.Call) or call.args[:1] != [value]:
        return False
    if source.dotted(call.func) is not None:
        return source.dotted(call.func) in _LINEAR
    first = [end_layer(source, layer, AFTER) for layer in constructors(source, call.func)]
    return bool(first) and all(source.called(layer) in _LINEAR for layer in first)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        visit = next((visit for visit in site.visits_in(Phase.TRAIN) if visit.is_active and visit.mask_shape), None)
        if visit is None or not any(name in CHANNEL_KINDS for name in (site.kind, visit.function)):
            continue
        rank, feature = len(visit.shape), visit.feature_dim
        if feature is not None and visit.mask_shape[feature] == 1 < visit.shape[feature]:
            what = "samples" if rank == 2 else "time steps or positions"
            yield TraceViolation(site, f"whole {what} are dropped: the features are along dimension {feature}")
        elif rank == 2:
            yield TraceViolation(site, "channel dropout on samples by features acts element by element")


RULE = Rule(
    code="DRP402",
    name="channel-dropout-on-matrix",
    message="channel dropout on an input without channels",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="use `nn.Dropout`",
    examples=(
        Example(
            """
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
-        self.dropout = nn.Dropout2d(0.5)
+        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        x = torch.relu(self.hidden(x))
        x = self.dropout(x)  # DRP402
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
