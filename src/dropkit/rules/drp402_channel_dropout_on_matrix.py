"""Channel dropout beside a linear layer, on an input without channels.

`Dropout1d` zeroes whole samples, without a warning; `Dropout2d` and `Dropout3d` warn and drop single elements, or drop
along the wrong dimension of inputs with more than two. They are made for feature maps, whose second dimension holds
channels, not for matrices of samples and features. Use `nn.Dropout`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import ACTIVATIONS, CHANNEL_DROPOUTS, CHANNEL_KINDS, DROPOUT_MODULES
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.data_flow import MOST, origins, reads_after
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import argument, last_part, literal, self_attribute
from dropkit.lint.semantic.layers import constructors, operation
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import BEFORE, adjacent_layer, end_layer, nearest_layer
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_FUNCTIONS = frozenset(f"torch.nn.functional.dropout{n}d" for n in (1, 2, 3))
_LINEAR = frozenset({"torch.nn.Linear", "torch.nn.LazyLinear", "torch.nn.Bilinear", "torch.nn.functional.linear"})
# Operations that keep the shape: layers, and functions and methods by the last part of their name.
_SAME_SHAPE = ACTIVATIONS | DROPOUT_MODULES | {"torch.nn.BatchNorm1d", "torch.nn.LayerNorm", "torch.nn.Threshold"}
_SAME_SHAPE_CALLS = frozenset(
    {"relu", "relu_", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "dropout", "softplus", "relu6",
     "mish", "hardswish", "normalize", "layer_norm", "contiguous", "float"}
)  # fmt: skip


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.LAYER):
        if dropout.name in CHANNEL_DROPOUTS and _row_is_linear(source, dropout.call):
            yield Violation(dropout.call, _message(dropout), _fix(source, dropout))
    wrong = [dropout for dropout in _applications(source)
             if _is_matrix(source, dropout.input) or _feeds_linear(source, dropout.call)]  # fmt: skip
    wrong_calls = {dropout.call for dropout in wrong}
    can_fix = {
        layer: all(source.parent(use) in wrong_calls for use in _uses(*layer))
        for layer in dict.fromkeys(_layer(source, call) for call in wrong_calls)
    }
    for dropout in wrong:
        # The fix replaces a layer for all its uses: all must be wrong.
        fix = _fix(source, dropout) if can_fix[_layer(source, dropout.call)] else None
        yield Violation(dropout.call, _message(dropout), fix)


def _applications(source: SourceFile) -> Iterator[DropoutCall]:
    """The calls that drop channels."""
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.APPLICATION):
        names = {layer.name for layer in dropout.layers}
        if names <= _FUNCTIONS or (names <= CHANNEL_DROPOUTS and dropout.call.args):
            yield dropout


def _row_is_linear(source: SourceFile, call: ast.expr) -> bool:
    """Whether a layer comes after a linear layer or a Flatten, or before a linear layer, in a row of layers."""
    before = _past_same_shape(source, call, -1)
    if before is not None:
        return _makes_matrix(source, before)
    after = _past_same_shape(source, call, 1)
    return after is not None and source.called(after) in _LINEAR


def _past_same_shape(source: SourceFile, layer: ast.expr, step: int) -> ast.Call | None:
    """The nearest layer in a row that may change the shape, before (-1) or after (1) `layer`."""
    return nearest_layer(source, layer, step, _keeps_shape)


def _keeps_shape(name: str | None) -> bool:
    return name in _SAME_SHAPE


def _makes_matrix(source: SourceFile, layer: ast.Call) -> bool:
    return source.called(layer) in _LINEAR or (source.called(layer) == "torch.nn.Flatten" and not layer.args)


def _is_matrix(source: SourceFile, expression: ast.expr | None) -> bool:
    """Whether `expression` is certainly a matrix of samples and features, or the result of a linear layer."""
    pending: list[ast.expr | None] = [expression]
    for value in pending:
        for origin in origins(source, value) if value is not None else [None]:
            # Long chains are not followed.
            if origin is None or len(pending) > MOST:
                return False
            result = _returns_matrix(source, origin)
            if isinstance(result, ast.expr):
                pending.append(result)
            elif not result:
                return False
    return True


def _returns_matrix(source: SourceFile, expression: ast.expr) -> bool | ast.expr:
    """Whether an operation returns a matrix; its input, if it keeps the shape."""
    applied = operation(source, expression)
    if applied is None:
        return False
    if applied.layers:
        if applied.name not in _SAME_SHAPE:
            return all(_makes_matrix(source, layer) for layer in applied.layers)
        if any(adjacent_layer(source, layer, BEFORE) is not None for layer in applied.layers):
            before = [_past_same_shape(source, layer, -1) for layer in applied.layers]
            return all(layer is not None and _makes_matrix(source, layer) for layer in before)
        return applied.input if applied.input is not None else False
    last = last_part(applied.name)
    if last in _SAME_SHAPE_CALLS:
        return applied.input if applied.input is not None else False
    return applied.name in _LINEAR or _flattens(source, applied.call, last, applied.name.startswith("."))


def _flattens(source: SourceFile, call: ast.Call, last: str, is_method: bool) -> bool:
    """Whether a call returns a matrix: view(n, -1), flatten(1), the mean over two dimensions, pool(x).squeeze()."""
    arguments = call.args if is_method else call.args[1:]
    if last in ("view", "reshape"):
        sizes = (
            arguments[0].elts if len(arguments) == 1 and isinstance(arguments[0], (ast.Tuple, ast.List)) else arguments
        )
        return len(sizes) == 2 and not any(isinstance(size, ast.Starred) for size in sizes)
    if last == "flatten":
        start = argument(call, 0 if is_method else 1, "start_dim")
        return literal(start) == 1 and len(arguments) + len(call.keywords) == 1
    if last == "mean":
        axes = argument(call, 0 if is_method else 1, "dim")
        return (
            isinstance(axes, (ast.Tuple, ast.List)) and len(axes.elts) == 2 and argument(call, None, "keepdim") is None
        )
    if last == "squeeze" and not arguments and is_method and isinstance(call.func, ast.Attribute):
        pooled = operation(source, call.func.value)
        return pooled is not None and "adaptive" in pooled.name.lower() and "1d" not in pooled.name
    return False


def _feeds_linear(source: SourceFile, call: ast.Call) -> bool:
    """Whether the result of `call` is used by linear layers only."""
    if _starts_linear(source, source.parent(call), call):
        return _unknown_shape(source, call)
    statement = source.statement(call)
    target = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is call else None
    if not isinstance(target, ast.Name):
        return False
    reads = reads_after(source, target.id, statement)
    return (
        0 < len(reads) <= MOST
        and all(_starts_linear(source, source.parent(read), read) for read in reads)
        and _unknown_shape(source, call)
    )


def _starts_linear(source: SourceFile, use: ast.AST | None, value: ast.AST) -> bool:
    """Whether `use` passes `value` to a linear layer, or to layers that begin with one."""
    if not isinstance(use, ast.Call) or use.args[:1] != [value]:
        return False
    if source.dotted(use.func) is not None:
        return source.dotted(use.func) in _LINEAR
    first = [end_layer(source, layer, 1) for layer in constructors(source, use.func)]
    return bool(first) and all(layer is not None and source.called(layer) in _LINEAR for layer in first)


def _unknown_shape(source: SourceFile, call: ast.Call) -> bool:
    """Whether nothing shows that the input has channels, such as a convolution or a permutation."""
    for origin in origins(source, call.args[0]) if call.args else ():
        applied = operation(source, origin) if origin is not None else None
        if applied is not None and any(
            word in applied.name.lower() for word in ("conv", "pool", "batchnorm2d", "perm")
        ):
            return False
    return True


def _layer(source: SourceFile, call: ast.Call) -> tuple[ClassDefinition | None, str | None]:
    """The class and the attribute of the layer that `call` applies."""
    attribute, owner = self_attribute(call.func), source.owner(call)
    return (owner, attribute) if owner is not None and attribute is not None else (None, None)


def _uses(owner: ClassDefinition | None, attribute: str | None) -> list[ast.Attribute]:
    return owner.reads.get(attribute or "", []) if owner is not None else []


def _message(dropout: DropoutCall) -> str:
    return f"{last_part(dropout.layers[0].name)} on features without channels"


def _fix(source: SourceFile, dropout: DropoutCall) -> Fix | None:
    """Remove the last two characters of the names: Dropout2d becomes Dropout."""
    edits = [
        replace(source, callee, f"{source.text.of(callee.value)}.{callee.attr[:-2]}")
        for layer in dropout.layers
        if isinstance(callee := layer.call.func, ast.Attribute) and callee.attr == last_part(layer.name)
    ]
    return Fix("Drop elements instead", tuple(edits), safe=False) if len(edits) == len(dropout.layers) else None


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
            bad="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.dropout = nn.Dropout2d(0.5)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        x = torch.relu(self.hidden(x))
        x = self.dropout(x)  # DRP402
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        x = torch.relu(self.hidden(x))
        x = self.dropout(x)
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
