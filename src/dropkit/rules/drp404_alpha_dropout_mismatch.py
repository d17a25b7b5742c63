"""Plain dropout behind SELU, or AlphaDropout without SELU.

SELU keeps mean 0 and variance 1 from layer to layer, so that a network needs no normalisation. Plain dropout behind it
destroys both (after ten layers the deviation is 1.23 instead of 1); AlphaDropout, which drops to the value that SELU
saturates at, keeps them. Behind another activation AlphaDropout sets dropped units to a negative value that this
activation never gives. Swap the two kinds. Where a class normalises by a layer of its own, nothing is reported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import ACTIVATION_KINDS, FUNCTIONALS
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.data_flow import MOST, beside, layers, operation, origins
from dropkit.lint.semantic.definitions import ClassDefinition, FunctionDefinition
from dropkit.lint.semantic.edits import replace
from dropkit.lint.semantic.expressions import argument, self_attribute
from dropkit.lint.semantic.model import SourceFile, cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_PLAIN, _ALPHA = "torch.nn.Dropout", "torch.nn.AlphaDropout"
_FUNCTIONS = {"torch.nn.functional.dropout": _PLAIN, "torch.nn.functional.alpha_dropout": _ALPHA}
_SELU = frozenset({"torch.nn.SELU", "torch.nn.functional.selu", "torch.nn.functional.selu_", "torch.selu", ".selu"})
# Activations that never reach the value AlphaDropout drops to. Not ELU, SELU's kin: published networks have the pair.
_OTHERS = frozenset(
    [f"torch.nn.{name}" for name in ("ReLU", "GELU", "SiLU", "Sigmoid", "ReLU6", "Softplus", "LeakyReLU", "Mish")]
    + [prefix + name for prefix in ("torch.nn.functional.", "torch.", ".")
       for name in ("relu", "gelu", "silu", "sigmoid", "relu6", "softplus", "leaky_relu", "mish")]
)  # fmt: skip
_NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm", "weight_norm", "batch_norm", "layer_norm")
_MESSAGES = {
    _PLAIN: "plain dropout behind SELU: AlphaDropout keeps its variance",
    _ALPHA: "AlphaDropout behind an activation that is not SELU",
}


def check_source(source: SourceFile) -> Iterator[Violation]:
    has_selu = b"selu" in source.text.utf8.lower()
    hits = [*_in_a_row(source), *_applications(source)] if has_selu or b"lpha" in source.text.utf8 else []
    dropped: set[ast.AST | None] = {call for call, _, _ in hits}
    for call, made, activation in hits:
        kind = _kind(source, made[0])
        fits = activation in _SELU if kind == _PLAIN else activation in _OTHERS and not has_selu
        if fits and not _never(source, made) and not (kind == _PLAIN and _normalises(source, call)):
            yield Violation(call, _MESSAGES[kind], _fix(source, call, made, dropped))


def _in_a_row(source: SourceFile) -> Iterator[tuple[ast.Call, tuple[ast.Call, ...], str]]:
    """Dropout layers in a Sequential or a list, and the layer before each."""
    for name in ("Dropout", "AlphaDropout"):
        for call in source.calls.get(name, []):
            before = beside(source, call, -1) if source.called(call) in (_PLAIN, _ALPHA) else None
            if before is not None:
                yield call, (call,), source.called(before) or ""


def _applications(source: SourceFile) -> Iterator[tuple[ast.Call, tuple[ast.Call, ...], str]]:
    """Calls that drop, what to rename (themselves or what made the layer), and the activation before."""
    for name, calls in source.calls.items():
        for call in calls if "drop" in name.lower() else ():
            made = (call,) if source.called(call) in _FUNCTIONS else ()
            if source.called(call) is None and call.args:
                made = tuple(layers(source, call.func))
            kinds = {_kind(source, one) for one in made}
            if kinds not in ({_PLAIN}, {_ALPHA}) or not call.args:
                continue
            applied = [operation(source, one) if one is not None else None for one in origins(source, call.args[0])]
            names = {one.name if one is not None else "" for one in applied}
            if len(names) == 1:
                yield call, made, names.pop()


def _kind(source: SourceFile, made: ast.Call) -> str:
    name = source.called(made) or ""
    return _FUNCTIONS.get(name, name)


def _never(source: SourceFile, made: tuple[ast.Call, ...]) -> bool:
    """Whether the rate is 0, or the mode evaluation."""
    for one in made:
        function = FUNCTIONALS.get(source.called(one) or "")
        p = argument(one, function.p if function is not None else 0, "p")
        flag = argument(one, function.training, function.training_name) if function is not None else None
        if any(isinstance(value, ast.Constant) and not value.value for value in (p, flag)):
            return True
    return False


def _normalises(source: SourceFile, node: ast.AST) -> bool:
    """Whether the class, or the function outside of classes, has a layer that normalises."""
    owner = source.owner(node)
    return (owner or source.function(node)) in _normalising(source)


@cached_per_file
def _normalising(source: SourceFile) -> set[ClassDefinition | FunctionDefinition | None]:
    """The classes, and the functions outside of classes, that have a layer which normalises."""
    named = [call for name, calls in source.calls.items() if any(word in name for word in _NORMS) for call in calls]
    return {source.owner(call) or source.function(call) for call in named}


def _fix(source: SourceFile, call: ast.Call, made: tuple[ast.Call, ...], hits: set[ast.AST | None]) -> Fix | None:
    attribute, owner = self_attribute(call.func), source.owner(call)
    reads = owner.reads.get(attribute or "", []) if owner is not None else []
    if len(reads) > MOST or any(source.parent(one) not in hits for one in reads):
        return None  # A layer that is applied elsewhere too cannot be swapped for this place alone.
    edits = [
        replace(source, one.func, f"{source.text.of(one.func.value)}.{_other(one.func.attr)}")
        for one in made
        if isinstance(one.func, ast.Attribute)
        # F.alpha_dropout is off unless told otherwise: a call that leaves `training` out cannot be renamed.
        and (one is not call or _kind(source, one) == _ALPHA or argument(one, 2, "training") is not None
             or source.called(one) not in _FUNCTIONS)
    ]  # fmt: skip
    return Fix("Swap the kind of dropout", tuple(edits), safe=False) if len(edits) == len(made) else None


def _other(name: str) -> str:
    """The name of the other kind: Dropout and AlphaDropout, dropout and alpha_dropout."""
    names = ("Dropout", "AlphaDropout") if name[:1].isupper() else ("dropout", "alpha_dropout")
    return names[0] if name == names[1] else names[1]


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        visit = next((visit for visit in site.visits_in(Phase.TRAIN) if visit.is_active), None)
        if visit is None:
            continue
        alpha = "alpha" in f"{site.kind} {visit.function}".lower()
        if visit.origin.last == "SELU" and not alpha and site.kind in ("Dropout", "dropout"):
            yield TraceViolation(site, "behind SELU alpha dropout keeps mean and variance, this does not")
        elif alpha and visit.origin.last in ACTIVATION_KINDS - {"SELU"}:
            yield TraceViolation(site, f"alpha dropout is made for SELU, and stands behind {visit.origin.last}")


RULE = Rule(
    code="DRP404",
    name="alpha-dropout-mismatch",
    message="dropout of a kind that does not fit the activation",
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
