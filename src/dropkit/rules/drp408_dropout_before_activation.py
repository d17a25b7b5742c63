"""Dropout directly before an activation.

Before ReLU, LeakyReLU and PReLU the order changes nothing: they keep zeros and the factor by which dropout scales the
kept units, so both orders give the same numbers, for ReLU bit for bit. Nothing has to be done; the remark says so
because it is often asked.

Before any other activation the order matters, and the next layer gets inputs with another mean in training than in
evaluation. After a sigmoid a dropped unit is 0.5 instead of 0; GELU, tanh and ELU do not preserve the factor. With
standard normal inputs and p = 0.5 the mean after GELU is 0.36 in training and 0.28 in evaluation; behind the activation
both are equal. Put dropout after the activation: see `docs/before-or-after-the-activation.md`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import ACTIVATION_KINDS, DROPOUT_MODULES, HOMOGENEOUS_KINDS
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.data_flow import origins
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_call, dropout_calls
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.layers import Operation, folded, operation
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import AFTER, adjacent_layer
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

# Without AlphaDropout, which has another purpose: it keeps mean and variance after SELU.
_ALPHA = frozenset({"AlphaDropout", "FeatureAlphaDropout"})
# Activations by the name of their function without underscores: `leakyrelu` for F.leaky_relu.
_KINDS = {kind.lower(): kind for kind in ACTIVATION_KINDS - {"Identity"}}


def check_source(source: SourceFile) -> Iterator[Violation]:
    for layer in dropout_calls(source, DropoutForm.LAYER):
        after = adjacent_layer(source, layer.call, AFTER) if layer.name in DROPOUT_MODULES else None
        kind = _activation(operation(source, after))
        if after is not None and kind is not None and layer.kind not in _ALPHA:
            fix = None if kind in HOMOGENEOUS_KINDS else _swap(source, layer.call, after)
            yield Violation(layer.call, _message(kind), fix)
    reported: set[ast.Call] = set()
    for dropout, kind in _before_functions(source):
        if dropout.call not in reported:
            reported.add(dropout.call)
            yield Violation(dropout.call, _message(kind))


def _message(kind: str) -> str:
    if kind in HOMOGENEOUS_KINDS:
        return f"before {kind}: here the order changes nothing"
    return f"before {kind}, which changes zeros or scale"


def _activation(applied: Operation | None) -> str | None:
    """The kind of the activation that a call makes or applies."""
    return _KINDS.get(folded(applied.torch_name)) if applied is not None else None


def _before_functions(source: SourceFile) -> Iterator[tuple[DropoutCall, str]]:
    """The dropouts whose output an activation takes: `F.gelu(self.drop(x))`, or a line later."""
    dropped = _dropped_names(source)
    for call in source.all_calls if dropout_calls(source) else ():
        # Resolving a call takes time: most do not take what was dropped.
        method = call.func.value if isinstance(call.func, ast.Attribute) else None
        values = [value for value in (*call.args[:1], method) if isinstance(value, (ast.Name, ast.Call))]
        if not any(value.id in dropped if isinstance(value, ast.Name) else True for value in values):
            continue
        applied = operation(source, call)
        kind = _activation(applied)
        if applied is None or kind is None:
            continue
        for origin in origins(source, applied.input):
            dropout = dropout_call(source, origin)
            if (
                dropout is not None
                and dropout.form in (DropoutForm.FUNCTION, DropoutForm.APPLICATION, DropoutForm.PER_CALL)
                and dropout.is_standard
                and dropout.kind not in _ALPHA
                and not dropout.never_drops
            ):
                yield dropout, kind


@cached_per_file
def _dropped_names(source: SourceFile) -> set[str]:
    """The names that the output of a dropout is assigned to."""
    statements = (source.parent(dropout.call) for dropout in dropout_calls(source))
    assigned = [statement for statement in statements if isinstance(statement, ast.Assign)]
    return {target.id for statement in assigned for target in statement.targets if isinstance(target, ast.Name)}


def _swap(source: SourceFile, dropout: ast.Call, activation: ast.Call) -> Fix | None:
    """Swap the two, if they are arguments of one call or elements of one list."""
    if source.parent(dropout) is not source.parent(activation):
        return None
    edits = (replace(source, dropout, source.text.of(activation)), replace(source, activation, source.text.of(dropout)))
    return Fix("Put dropout after the activation", edits, safe=False)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        activations = {name for visit in site.visits_in(Phase.TRAIN) if visit.is_active for name in visit.consumers}
        crossed = sorted(activations & (ACTIVATION_KINDS - HOMOGENEOUS_KINDS))
        if crossed and "alpha" not in site.kind.lower():
            yield TraceViolation(site, _message(crossed[0]))


RULE = Rule(
    code="DRP408",
    name="dropout-before-activation",
    message="dropout before an activation: see which orders matter",
    severity=Severity.INFO,
    check_source=check_source,
    check_trace=check_trace,
    fix="put dropout after the activation",
    examples=(
        Example(
            """
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(8, 16),
+    nn.Sigmoid(),
    nn.Dropout(0.3),  # DRP408
-    nn.Sigmoid(),
    nn.Linear(16, 2),
)
model.eval()(torch.randn(4, 8))
""",
        ),
    ),
)
