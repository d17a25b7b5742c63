"""Plain dropout after SELU, or AlphaDropout after another activation.

After SELU, plain dropout destroys mean 0 and variance 1, which SELU keeps from layer to layer instead of normalisation:
after ten layers the standard deviation is 1.23. AlphaDropout keeps both, since it sets dropped units to the value at
which SELU saturates. Other activations never return that value, so AlphaDropout after them shifts the mean. Swap the
two kinds. Classes with normalisation layers are not reported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import ACTIVATION_KINDS
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.data_flow import MOST, origins
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import self_attribute
from dropkit.lint.semantic.layers import operation
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import BEFORE, adjacent_layer
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_SWAPPED = {
    "Dropout": "AlphaDropout", "AlphaDropout": "Dropout", "dropout": "alpha_dropout", "alpha_dropout": "dropout",
}  # fmt: skip
_SELU = frozenset({"torch.nn.SELU", "torch.nn.functional.selu", "torch.nn.functional.selu_", "torch.selu", ".selu"})
# Activations that never return the value to which AlphaDropout drops. Without ELU: published networks combine them.
_OTHERS = frozenset(
    [f"torch.nn.{name}" for name in ("ReLU", "GELU", "SiLU", "Sigmoid", "ReLU6", "Softplus", "LeakyReLU", "Mish")]
    + [prefix + name for prefix in ("torch.nn.functional.", "torch.", ".")
       for name in ("relu", "gelu", "silu", "sigmoid", "relu6", "softplus", "leaky_relu", "mish")]
)  # fmt: skip
_NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm", "weight_norm", "batch_norm", "layer_norm")
# By whether the dropout is AlphaDropout.
_MESSAGES = {
    False: "plain dropout after SELU: AlphaDropout keeps the variance",
    True: "AlphaDropout after an activation other than SELU",
}


def check_source(source: SourceFile) -> Iterator[Violation]:
    has_selu = b"selu" in source.text.utf8.lower()
    may_match = has_selu or b"lpha" in source.text.utf8
    applications = list(_after_activation(source)) if may_match else []
    calls: set[ast.AST | None] = {dropout.call for dropout, _ in applications}
    for dropout, activation in applications:
        is_alpha = dropout.kind == "AlphaDropout"
        is_wrong = activation in _OTHERS and not has_selu if is_alpha else activation in _SELU
        is_normalised = not is_alpha and _normalises(source, dropout.call)
        if is_wrong and not is_normalised and not dropout.never_drops:
            yield Violation(dropout.call, _MESSAGES[is_alpha], _fix(source, dropout, calls))


def _after_activation(source: SourceFile) -> Iterator[tuple[DropoutCall, str]]:
    """Dropouts of the two kinds, with the name of the layer or operation directly before each."""
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.LAYER, DropoutForm.APPLICATION):
        if dropout.kind not in ("Dropout", "AlphaDropout"):
            continue
        if dropout.form is DropoutForm.LAYER:
            before = adjacent_layer(source, dropout.call, BEFORE)
            if before is not None:
                yield dropout, source.called(before) or ""
        elif dropout.call.args:
            inputs = [operation(source, origin) for origin in origins(source, dropout.call.args[0])]
            names = {applied.name if applied is not None else "" for applied in inputs}
            if len(names) == 1:
                yield dropout, names.pop()


def _normalises(source: SourceFile, node: ast.AST) -> bool:
    """Whether the class, or the function outside of classes, around `node` uses a normalisation layer."""
    owner = source.owner(node)
    return (owner or source.function(node)) in _normalising(source)


@cached_per_file
def _normalising(source: SourceFile) -> set[ClassDefinition | FunctionDefinition | None]:
    """The classes, and the functions outside of classes, that use a normalisation layer."""
    norms = [call for name, calls in source.calls.items() if any(word in name for word in _NORMS) for call in calls]
    return {source.owner(call) or source.function(call) for call in norms}


def _fix(source: SourceFile, dropout: DropoutCall, applications: set[ast.AST | None]) -> Fix | None:
    attribute, owner = self_attribute(dropout.call.func), source.owner(dropout.call)
    reads = owner.reads.get(attribute or "", []) if owner is not None else []
    if len(reads) > MOST or any(source.parent(read) not in applications for read in reads):
        return None  # a layer with other uses cannot be swapped for this one alone
    if dropout.form is DropoutForm.FUNCTION and dropout.kind == "Dropout" and dropout.training is None:
        return None  # F.alpha_dropout is inactive by default: a call without `training` cannot be renamed
    edits = [
        replace(source, callee, f"{source.text.of(callee.value)}.{_SWAPPED[callee.attr]}")
        for layer in dropout.layers
        if isinstance(callee := layer.call.func, ast.Attribute) and callee.attr in _SWAPPED
    ]
    return Fix("Swap the kind of dropout", tuple(edits), safe=False) if len(edits) == len(dropout.layers) else None


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        visit = next((visit for visit in site.visits_in(Phase.TRAIN) if visit.is_active), None)
        if visit is None:
            continue
        alpha = "alpha" in f"{site.kind} {visit.function}".lower()
        if visit.origin.last == "SELU" and not alpha and site.kind in ("Dropout", "dropout"):
            yield TraceViolation(site, "after SELU, AlphaDropout keeps mean and variance; plain dropout does not")
        elif alpha and visit.origin.last in ACTIVATION_KINDS - {"SELU"}:
            yield TraceViolation(site, f"AlphaDropout is made for SELU, but is applied after {visit.origin.last}")


RULE = Rule(
    code="DRP404",
    name="alpha-dropout-mismatch",
    message="the kind of dropout does not fit the activation",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="swap Dropout and AlphaDropout",
    examples=(
        Example(
            bad="""
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(8, 16),
    nn.SELU(),
    nn.Dropout(0.1),  # DRP404
    nn.Linear(16, 2),
)
model(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(8, 16),
    nn.SELU(),
    nn.AlphaDropout(0.1),
    nn.Linear(16, 2),
)
model(torch.randn(4, 8))
""",
        ),
        Example(
            bad="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.dropout = nn.AlphaDropout(0.1)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        x = F.relu(self.hidden(x))
        x = self.dropout(x)  # DRP404
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
            good="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        x = F.relu(self.hidden(x))
        x = self.dropout(x)
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
