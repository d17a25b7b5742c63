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
from dropkit.facts.definitions import Class, Function
from dropkit.facts.edit import replace
from dropkit.facts.expressions import argument, self_attribute
from dropkit.facts.finding import Fix, Severity
from dropkit.facts.flow import MOST, beside, layers, operation, origins
from dropkit.facts.module import Module, once
from dropkit.facts.trace import Phase, Trace
from dropkit.rules.rule import Example, Hit, Rule, Sight

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


def find(module: Module) -> Iterator[Hit]:
    has_selu = b"selu" in module.text.utf8.lower()
    hits = [*_in_a_row(module), *_applications(module)] if has_selu or b"lpha" in module.text.utf8 else []
    dropped: set[ast.AST | None] = {call for call, _, _ in hits}
    for call, made, activation in hits:
        kind = _kind(module, made[0])
        fits = activation in _SELU if kind == _PLAIN else activation in _OTHERS and not has_selu
        if fits and not _never(module, made) and not (kind == _PLAIN and _normalises(module, call)):
            yield Hit(call, _MESSAGES[kind], _fix(module, call, made, dropped))


def _in_a_row(module: Module) -> Iterator[tuple[ast.Call, tuple[ast.Call, ...], str]]:
    """Dropout layers in a Sequential or a list, and the layer before each."""
    for name in ("Dropout", "AlphaDropout"):
        for call in module.calls.get(name, []):
            before = beside(module, call, -1) if module.called(call) in (_PLAIN, _ALPHA) else None
            if before is not None:
                yield call, (call,), module.called(before) or ""


def _applications(module: Module) -> Iterator[tuple[ast.Call, tuple[ast.Call, ...], str]]:
    """Calls that drop, what to rename (themselves or what made the layer), and the activation before."""
    for name, calls in module.calls.items():
        for call in calls if "drop" in name.lower() else ():
            made = (call,) if module.called(call) in _FUNCTIONS else ()
            if module.called(call) is None and call.args:
                made = tuple(layers(module, call.func))
            kinds = {_kind(module, one) for one in made}
            if kinds not in ({_PLAIN}, {_ALPHA}) or not call.args:
                continue
            applied = [operation(module, one) if one is not None else None for one in origins(module, call.args[0])]
            names = {one.name if one is not None else "" for one in applied}
            if len(names) == 1:
                yield call, made, names.pop()


def _kind(module: Module, made: ast.Call) -> str:
    name = module.called(made) or ""
    return _FUNCTIONS.get(name, name)


def _never(module: Module, made: tuple[ast.Call, ...]) -> bool:
    """Whether the rate is 0, or the mode evaluation."""
    for one in made:
        function = FUNCTIONALS.get(module.called(one) or "")
        p = argument(one, function.p if function is not None else 0, "p")
        flag = argument(one, function.training, function.training_name) if function is not None else None
        if any(isinstance(value, ast.Constant) and not value.value for value in (p, flag)):
            return True
    return False


def _normalises(module: Module, node: ast.AST) -> bool:
    """Whether the class, or the function outside of classes, has a layer that normalises."""
    owner = module.owner(node)
    return (owner or module.function(node)) in _normalising(module)


@once
def _normalising(module: Module) -> set[Class | Function | None]:
    """The classes, and the functions outside of classes, that have a layer which normalises."""
    named = [call for name, calls in module.calls.items() if any(word in name for word in _NORMS) for call in calls]
    return {module.owner(call) or module.function(call) for call in named}


def _fix(module: Module, call: ast.Call, made: tuple[ast.Call, ...], hits: set[ast.AST | None]) -> Fix | None:
    attribute, owner = self_attribute(call.func), module.owner(call)
    reads = owner.reads.get(attribute or "", []) if owner is not None else []
    if len(reads) > MOST or any(module.parent(one) not in hits for one in reads):
        return None  # A layer that is applied elsewhere too cannot be swapped for this place alone.
    edits = [
        replace(module, one.func, f"{module.text.of(one.func.value)}.{_other(one.func.attr)}")
        for one in made
        if isinstance(one.func, ast.Attribute)
        # F.alpha_dropout is off unless told otherwise: a call that leaves `training` out cannot be renamed.
        and (one is not call or _kind(module, one) == _ALPHA or argument(one, 2, "training") is not None
             or module.called(one) not in _FUNCTIONS)
    ]  # fmt: skip
    return Fix("Swap the kind of dropout", tuple(edits), safe=False) if len(edits) == len(made) else None


def _other(name: str) -> str:
    """The name of the other kind: Dropout and AlphaDropout, dropout and alpha_dropout."""
    names = ("Dropout", "AlphaDropout") if name[:1].isupper() else ("dropout", "alpha_dropout")
    return names[0] if name == names[1] else names[1]


def see(trace: Trace) -> Iterator[Sight]:
    for site in trace.sites:
        visit = next((visit for visit in site.of(Phase.TRAIN) if visit.drew), None)
        if visit is None:
            continue
        alpha = "alpha" in f"{site.kind} {visit.function}".lower()
        if visit.origin.last == "SELU" and not alpha and site.kind in ("Dropout", "dropout"):
            yield Sight(site, "behind SELU alpha dropout keeps mean and variance, this does not")
        elif alpha and visit.origin.last in ACTIVATION_KINDS - {"SELU"}:
            yield Sight(site, f"alpha dropout is made for SELU, and stands behind {visit.origin.last}")


RULE = Rule(
    code="DRP404",
    name="alpha-dropout-mismatch",
    message="dropout of a kind that does not fit the activation",
    severity=Severity.WARNING,
    find=find,
    see=see,
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
