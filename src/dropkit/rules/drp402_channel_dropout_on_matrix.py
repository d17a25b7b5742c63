"""Channel dropout beside a linear layer, where there are no channels.

Dropout2d, Dropout3d and Dropout1d zero whole channels of feature maps, those along the second axis. A matrix of samples
and features has none: Dropout1d then zeroes whole samples without a word, Dropout2d and Dropout3d warn and act element
by element, or along the wrong axis if there are more axes than two. Behind a linear layer, or before one, `nn.Dropout`
is meant.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import ACTIVATIONS, CHANNEL_DROPOUTS, CHANNEL_KINDS, DROPOUT_MODULES
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.data_flow import MOST, beside, beyond, last_layer, layers, operation, origins, reads_after
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import argument, self_attribute
from dropkit.lint.semantic.model import SourceFile
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_FUNCTIONS = frozenset(f"torch.nn.functional.dropout{n}d" for n in (1, 2, 3))
_LINEAR = frozenset({"torch.nn.Linear", "torch.nn.LazyLinear", "torch.nn.Bilinear", "torch.nn.functional.linear"})
# What leaves the shape as it is: layers, and functions and methods by their last name.
_SAME_SHAPE = ACTIVATIONS | DROPOUT_MODULES | {"torch.nn.BatchNorm1d", "torch.nn.LayerNorm", "torch.nn.Threshold"}
_SAME_SHAPE_CALLS = frozenset(
    {"relu", "relu_", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "dropout", "softplus", "relu6",
     "mish", "hardswish", "normalize", "layer_norm", "contiguous", "float"}
)  # fmt: skip


def check_source(source: SourceFile) -> Iterator[Violation]:
    for name in ("Dropout1d", "Dropout2d", "Dropout3d"):
        for call in source.calls.get(name, []):
            if source.called(call) in CHANNEL_DROPOUTS and (_row_is_linear(source, call)):
                yield Violation(call, _message(call), _fix(source, (call,)))
    hits = [(call, made) for call, made in _applications(source) if _is_matrix(source, _input(call))
            or _feeds_linear(source, call)]  # fmt: skip
    found = {call for call, _ in hits}
    all_hit = {layer: all(source.parent(one) in found for one in _uses(*layer))
               for layer in dict.fromkeys(_layer(source, call) for call in found)}  # fmt: skip
    for call, made in hits:
        # A layer is made anew for all its uses.
        yield Violation(call, _message(made[0]), _fix(source, made) if all_hit[_layer(source, call)] else None)


def _applications(source: SourceFile) -> Iterator[tuple[ast.Call, tuple[ast.Call, ...]]]:
    """Calls that drop channels, with the calls to rename: themselves, or those that made the layer."""
    kept = {name for one in source.classes for name in one.writes}
    if not any(name in source.calls for name in ("Dropout1d", "Dropout2d", "Dropout3d")):
        kept = set[str]()
    for name, calls in source.calls.items():
        for call in calls if name in kept or "ropout" in name else ():
            if source.called(call) in _FUNCTIONS:
                yield call, (call,)
            elif source.called(call) is None and call.args:
                made = tuple(layers(source, call.func))
                if made and all(source.called(one) in CHANNEL_DROPOUTS for one in made):
                    yield call, made


def _row_is_linear(source: SourceFile, call: ast.expr) -> bool:
    """Whether a layer stands behind a linear layer or a Flatten, or right before a linear one, in a row of layers."""
    before = _past_same_shape(source, call, -1)
    if before is not None:
        return _makes_matrix(source, before)
    after = _past_same_shape(source, call, 1)
    return after is not None and source.called(after) in _LINEAR


def _past_same_shape(source: SourceFile, layer: ast.expr, step: int) -> ast.Call | None:
    """The nearest layer in the row that may change the shape."""
    return beyond(source, layer, step, _keeps_shape)


def _keeps_shape(name: str | None) -> bool:
    return name in _SAME_SHAPE


def _makes_matrix(source: SourceFile, layer: ast.Call) -> bool:
    return source.called(layer) in _LINEAR or (source.called(layer) == "torch.nn.Flatten" and not layer.args)


def _is_matrix(source: SourceFile, expression: ast.expr | None) -> bool:
    """Whether `expression` is certainly samples by features, or what a linear layer made."""
    pending: list[ast.expr | None] = [expression]
    for one in pending:
        for origin in origins(source, one) if one is not None else [None]:
            # What is made in so many steps is not followed to its beginning.
            if origin is None or len(pending) > MOST:
                return False
            made = _made_as_matrix(source, origin)
            if isinstance(made, ast.expr):
                pending.append(made)
            elif not made:
                return False
    return True


def _made_as_matrix(source: SourceFile, expression: ast.expr) -> bool | ast.expr:
    """Whether a layer or function makes a matrix; where it keeps the shape, its input, which then decides."""
    applied = operation(source, expression)
    if applied is None:
        return False
    if applied.layers:
        if applied.name not in _SAME_SHAPE:
            return all(_makes_matrix(source, one) for one in applied.layers)
        if any(beside(source, one, -1) is not None for one in applied.layers):
            rows = [_past_same_shape(source, one, -1) for one in applied.layers]
            return all(one is not None and _makes_matrix(source, one) for one in rows)
        return applied.input if applied.input is not None else False
    last = applied.name.rsplit(".", 1)[-1]
    if last in _SAME_SHAPE_CALLS:
        return applied.input if applied.input is not None else False
    return applied.name in _LINEAR or _flattens(source, applied.call, last, applied.name.startswith("."))


def _flattens(source: SourceFile, call: ast.Call, last: str, is_method: bool) -> bool:
    """Whether a call gives samples by features: view(n, -1), flatten(1), the mean over two axes, pool(x).squeeze()."""
    arguments = call.args if is_method else call.args[1:]
    if last in ("view", "reshape"):
        sizes = (
            arguments[0].elts if len(arguments) == 1 and isinstance(arguments[0], (ast.Tuple, ast.List)) else arguments
        )
        return len(sizes) == 2 and not any(isinstance(one, ast.Starred) for one in sizes)
    if last == "flatten":
        start = argument(call, 0 if is_method else 1, "start_dim")
        return isinstance(start, ast.Constant) and start.value == 1 and len(arguments) + len(call.keywords) == 1
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
    """Whether what is dropped goes into a linear layer and nowhere else before."""
    if _starts_linear(source, source.parent(call), call):
        return _unknown_shape(source, call)
    statement = source.statement(call)
    target = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is call else None
    if not isinstance(target, ast.Name):
        return False
    reads = reads_after(source, target.id, statement)
    return (
        0 < len(reads) <= MOST
        and all(_starts_linear(source, source.parent(one), one) for one in reads)
        and _unknown_shape(source, call)
    )


def _starts_linear(source: SourceFile, use: ast.AST | None, given: ast.AST) -> bool:
    if not isinstance(use, ast.Call) or use.args[:1] != [given]:
        return False
    if source.dotted(use.func) is not None:
        return source.dotted(use.func) in _LINEAR
    first = [last_layer(source, one, 1) for one in layers(source, use.func)]
    return bool(first) and all(one is not None and source.called(one) in _LINEAR for one in first)


def _unknown_shape(source: SourceFile, call: ast.Call) -> bool:
    """Whether nothing says that the input has channels: it was not turned, and made by no convolution."""
    for origin in origins(source, call.args[0]) if call.args else ():
        applied = operation(source, origin) if origin is not None else None
        if applied is not None and any(
            word in applied.name.lower() for word in ("conv", "pool", "batchnorm2d", "perm")
        ):
            return False
    return True


def _layer(source: SourceFile, call: ast.Call) -> tuple[ClassDefinition | None, str | None]:
    """The class and the attribute that holds the layer which `call` applies."""
    attribute, owner = self_attribute(call.func), source.owner(call)
    return (owner, attribute) if owner is not None and attribute is not None else (None, None)


def _uses(owner: ClassDefinition | None, attribute: str | None) -> list[ast.Attribute]:
    return owner.reads.get(attribute or "", []) if owner is not None else []


def _input(call: ast.Call) -> ast.expr | None:
    return call.args[0] if call.args else argument(call, None, "input")


def _message(made: ast.Call) -> str:
    name = made.func.attr if isinstance(made.func, ast.Attribute) else getattr(made.func, "id", "channel dropout")
    return f"{name} where there are features and no channels"


def _fix(source: SourceFile, made: tuple[ast.Call, ...]) -> Fix | None:
    edits = [
        replace(source, one.func, f"{source.text.of(one.func.value)}.{one.func.attr[:-2]}")
        for one in made
        if isinstance(one.func, ast.Attribute)
    ]
    return Fix("Drop elements instead", tuple(edits), safe=False) if len(edits) == len(made) else None


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
    message="channel dropout where there are no channels",
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
