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
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls, names_before
from dropkit.lint.semantic.edits import swap_kind
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_SWAPPED = {
    "Dropout": "AlphaDropout", "AlphaDropout": "Dropout", "dropout": "alpha_dropout", "alpha_dropout": "dropout",
}  # fmt: skip
_SELU = frozenset({"SELU", "selu", "selu_"})
# Activations that never return the value to which AlphaDropout drops. Without ELU: published networks combine them.
_OTHERS = frozenset(
    {"ReLU", "GELU", "SiLU", "Sigmoid", "ReLU6", "Softplus", "LeakyReLU", "Mish",
     "relu", "gelu", "silu", "sigmoid", "relu6", "softplus", "leaky_relu", "mish"}
)  # fmt: skip
_NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm", "weight_norm", "batch_norm", "layer_norm")


def check_source(source: SourceFile) -> Iterator[Violation]:
    has_selu = b"selu" in source.text.utf8.lower()
    if not has_selu and b"lpha" not in source.text.utf8:
        return
    dropouts = dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.LAYER, DropoutForm.APPLICATION)
    swappable = [
        dropout for dropout in dropouts if dropout.kind in ("Dropout", "AlphaDropout") and not dropout.has_noise_shape
    ]
    calls = {dropout.call for dropout in swappable}
    for dropout in swappable:
        before = names_before(source, dropout)
        if len(before) > 1 or dropout.never_drops:
            continue
        if dropout.kind == "AlphaDropout" and not has_selu and before <= _OTHERS:
            yield Violation(
                dropout.call, "AlphaDropout after an activation other than SELU", _fix(source, dropout, calls)
            )
        elif dropout.kind == "Dropout" and before <= _SELU and not _is_normalised(source, dropout.call):
            yield Violation(
                dropout.call, "plain dropout after SELU: AlphaDropout keeps the variance", _fix(source, dropout, calls)
            )


def _is_normalised(source: SourceFile, node: ast.AST) -> bool:
    """Whether the class, or the function outside of classes, around `node` uses a normalisation layer."""
    return (source.owner(node) or source.function(node)) in _normalised(source)


@cached_per_file
def _normalised(source: SourceFile) -> set[ClassDefinition | FunctionDefinition | None]:
    norms = [call for name, calls in source.calls.items() if any(word in name for word in _NORMS) for call in calls]
    return {source.owner(call) or source.function(call) for call in norms}


def _fix(source: SourceFile, dropout: DropoutCall, swappable: set[ast.Call]) -> Fix | None:
    if dropout.form is DropoutForm.FUNCTION and dropout.kind == "Dropout" and dropout.training is None:
        return None  # F.alpha_dropout is inactive by default: a call without `training` cannot be renamed
    return swap_kind(source, "Swap the kind of dropout", dropout, swappable, _SWAPPED)


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
            """
import torch
from torch import nn

model = nn.Sequential(
    nn.Linear(8, 16),
    nn.SELU(),
-    nn.Dropout(0.1),  # DRP404
+    nn.AlphaDropout(0.1),
    nn.Linear(16, 2),
)
model(torch.randn(4, 8))
""",
        ),
        Example(
            """
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
-        self.dropout = nn.AlphaDropout(0.1)
+        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(16, 2)

    def forward(self, x):
        x = F.relu(self.hidden(x))
        x = self.dropout(x)  # DRP404
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
