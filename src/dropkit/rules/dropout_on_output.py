"""Dropout on the output of the whole model.

The model trains badly: a random part of the logits of every sample, at times that of the right class, is set to zero
before the loss, and no later layer can make up for it. Dropout makes a layer learn not to lean on single inputs; behind
the last layer there is none left to learn that. Put it before the last layer.

Reported where the last layer is known by its width (`num_classes`, `vocab_size` and the like) or by the softmax or loss
that follows.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import DROPOUT_MODULES, FUNCTIONALS, SOFTMAXES
from dropkit.facts.expressions import argument
from dropkit.facts.finding import Severity
from dropkit.facts.flow import MOST, beside, operation, origins, readers
from dropkit.facts.mode import named_around, on_purpose
from dropkit.facts.module import Module, once
from dropkit.facts.names import Vocabulary
from dropkit.facts.trace import Phase, Trace
from dropkit.rules.active import for_information
from dropkit.rules.rule import Default, Example, Hit, Rule, Sight

_F = "torch.nn.functional."
_DROPOUTS = DROPOUT_MODULES | frozenset(FUNCTIONALS)
_LINEAR = frozenset({"torch.nn.Linear", "torch.nn.LazyLinear"})
# What turns logits into probabilities, and what judges them.
_LOG_SOFTMAX = frozenset({_F + "log_softmax", "torch.log_softmax", "torch.nn.LogSoftmax", ".log_softmax"})
_SHAPE = (".squeeze", ".view", ".reshape", ".float", ".unsqueeze", ".permute", ".transpose", ".contiguous", ".flatten")
_PROBABILITIES = frozenset(
    [_F + "softmax", "torch.softmax", "torch.nn.Softmax", ".softmax", _F + "sigmoid", "torch.sigmoid", ".sigmoid",
     "torch.nn.Sigmoid", "torch.squeeze", "torch.flatten", *_SHAPE]
)  # fmt: skip
_LOSSES = frozenset(_F + name for name in ("cross_entropy", "nll_loss", "binary_cross_entropy_with_logits"))
_LOSS_MODULES = frozenset("torch.nn." + name for name in ("CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss"))

_CLASSES = re.compile(
    r"(num|n|nb|number|no)_?(of_?)?(\w+_)?(class|label|tag|categor|target)|^n?_?class(es)?$|n_?class|vocab_?size"
    r"|n_?vocab|^ntokens?$|tagset_?size|label_?size|class_?num|out_?class",
    re.IGNORECASE,
)
# A width below this, behind a layer that is named as a classifier, is a number of classes.
_FEW = 1000
_CLASSIFIER = re.compile(r"classif|logit", re.IGNORECASE)
# Scores that are inputs of something else, and outputs that are dropped on by design.
_OTHER = Vocabulary(
    r"attn|attention|atten|gate|gates|gated|gating|rout(?:e|er|ing)|alpha|cluster\w*|topics?|prodlda|prod lda|dmon"
    r"|molgan|embed|embedding|embeddings|assign|assignments?|prototypes?"
)
_BY_DESIGN = Vocabulary(r"prodlda|prod lda|dmon|molgan|mol gan|topics?|cluster\w*")


def find(module: Module) -> Iterator[Hit]:
    for name, calls in module.calls.items():
        if "drop" not in name.lower():
            continue
        for call in calls:
            if module.called(call) in DROPOUT_MODULES:
                found = _ends_a_head(module, call)
            else:
                found = _falls_on_output(module, call)
            if found and not on_purpose(module, call):
                by_name = _is_other(module, call) or named_around(module, call)
                yield for_information(Hit(call)) if by_name else Hit(call)


def _ends_a_head(module: Module, dropout: ast.Call) -> bool:
    """Whether `dropout` is last in a Sequential, but for a softmax, right behind a layer as wide as the classes."""
    row: ast.AST | None = module.parent(dropout)
    elements = row.elts if isinstance(row, ast.List) else row.args if isinstance(row, ast.Call) else []
    if dropout not in elements[-2:]:
        return False
    after = elements[-1:] if elements[-1] is not dropout else []
    if any(module.called(one) not in SOFTMAXES for one in after):
        return False
    if isinstance(row, ast.List):
        star = module.parent(row)
        row = module.parent(star) if isinstance(star, ast.Starred) else None
    if row is None or module.called(row) != "torch.nn.Sequential":
        return False
    if isinstance(module.parent(row), (ast.Call, ast.List, ast.Starred)):
        return False
    last = beside(module, dropout, -1)
    judged = bool(after) and module.called(after[0]) == "torch.nn.LogSoftmax"
    return last is not None and (_is_as_wide_as_classes(module, last) or (judged and module.called(last) in _LINEAR))


def _falls_on_output(module: Module, call: ast.Call) -> bool:
    """Whether `call` drops the result of a last layer, and what is left is returned or judged."""
    owner, dropout = module.owner(call), operation(module, call)
    if owner is None or not owner.is_module or dropout is None or dropout.name not in _DROPOUTS:
        return False
    if dropout.input is None or module.climb(module.remembered(_loops), call, _loops):
        return False
    uses = _uses(module, call)
    if "layer" in uses:
        return False
    return "logits" in uses or ("output" in uses and _comes_from_last_layer(module, dropout.input))


def _comes_from_last_layer(module: Module, value: ast.expr) -> bool:
    before = [operation(module, origin) if origin else None for origin in origins(module, value) or ()]
    return bool(before) and all(
        one is not None and one.layers and all(_is_last(module, one.call.func, layer) for layer in one.layers)
        for one in before
    )


def _is_last(module: Module, callee: ast.expr, layer: ast.Call) -> bool:
    """Whether `layer`, applied as `callee`, is as wide as there are classes, by its width or by its name."""
    if _is_as_wide_as_classes(module, layer):
        return True
    width = _width(layer)
    few = isinstance(width, ast.Constant) and isinstance(width.value, int) and width.value < _FEW
    named = isinstance(callee, ast.Attribute) and _CLASSIFIER.search(callee.attr) is not None
    return few and named and module.called(layer) in _LINEAR


def _loops(_: ast.AST, above: ast.AST) -> bool | None:
    return isinstance(above, (ast.For, ast.While)) or None


def _uses(module: Module, value: ast.expr) -> set[str]:
    """What becomes of `value`: "logits" of a softmax or a loss, "output" that is returned, or input of a "layer"."""
    found: set[str] = set()
    seen: set[ast.expr] = set()
    pending = [(value, 0)]
    for one, renamed in pending:
        if one in seen:
            continue
        seen.add(one)
        if len(pending) > MOST:
            return {"layer"}  # who knows
        whole = module.climb(module.remembered(_part_of), one, _part_of) or one
        above = module.parent(whole)
        if isinstance(above, ast.Return):
            found.add("output")
        elif isinstance(above, ast.Call):
            used = operation(module, above)
            name = used.name if used is not None else ""
            if name in _LOG_SOFTMAX or name in _LOSSES or (name in _LOSS_MODULES and used is not None and used.layers):
                found.add("logits")
            elif name in _PROBABILITIES:
                pending.append((above, renamed))
            elif used is None or used.layers:
                found.add("layer")
        elif isinstance(above, ast.Assign) and isinstance(above.targets[0], ast.Name) and renamed < 3:
            pending += [(read, renamed + 1) for read in readers(module, above, above.targets[0].id)]
    return found


def _part_of(node: ast.AST, above: ast.AST) -> ast.AST | None:
    """The outermost container, keyword or choice that a value is part of."""
    parts = (ast.keyword, ast.Tuple, ast.List, ast.Dict, ast.Attribute, ast.IfExp)
    return None if isinstance(above, parts) else node


def _width(layer: ast.Call) -> ast.expr | None:
    """The number of outputs that `layer` is made with."""
    named = [one for name in ("out_features", "out_channels") if (one := argument(layer, None, name)) is not None]
    return named[0] if named else layer.args[1] if len(layer.args) > 1 else None


@once
def _is_as_wide_as_classes(module: Module, layer: ast.Call) -> bool:
    """Whether the number of outputs of `layer` is named after classes, labels or words."""
    width = _width(layer)
    if width is None or "Embedding" in (module.called(layer) or ""):
        return False
    names = [one.attr if isinstance(one, ast.Attribute) else one.id for one in ast.walk(width)
             if isinstance(one, (ast.Attribute, ast.Name))]  # fmt: skip
    return any(_CLASSES.search(name) for name in names)


def _is_other(module: Module, call: ast.Call) -> bool:
    """Whether the statement or method says that its values are weights of something, not outputs."""
    function, owner = module.function(call), module.owner(call)
    name = function.method.name if function is not None else ""
    by_design = owner is not None and _BY_DESIGN.has(owner.name)
    return by_design or _OTHER.has(name) or _says_other(module, module.statement(call))


@once
def _says_other(module: Module, statement: ast.stmt) -> bool:
    return _OTHER.has(module.text.of(statement))


def see(trace: Trace) -> Iterator[Sight]:
    for site in trace.sites:
        for visit in site.of(Phase.TRAIN):
            ends = bool(visit.before) and set(visit.before) <= {"output", "LogSoftmax"}
            if visit.drew and ends and visit.origin.last == visit.origin.layer == "Linear":
                yield Sight(site)
                break


RULE = Rule(
    code="DRP406",
    name="dropout-on-output",
    message="dropout on the model's output zeroes its predictions",
    severity=Severity.WARNING,
    default=Default.PREVIEW,
    find=find,
    see=see,
    examples=(
        Example(
            bad="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(16, num_classes)

    def forward(self, x):
        x = torch.relu(self.hidden(x))
        return self.dropout(self.output(x))  # DRP406


Classifier(3).eval()(torch.randn(4, 8))
""",
            good="""
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(16, num_classes)

    def forward(self, x):
        x = torch.relu(self.hidden(x))
        return self.output(self.dropout(x))


Classifier(3).eval()(torch.randn(4, 8))
""",
        ),
    ),
)
