"""Dropout on the output of the whole model.

The model trains badly: random logits of every sample, sometimes that of the true class, are zero in the loss. Dropout
teaches the next layer not to rely on single inputs, and after the last layer there is no next one. Put it before the
last layer.

The last layer is recognised by its width (such as `num_classes`, `vocab_size`), or by the softmax or loss after it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import SOFTMAXES
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST, readers
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.expressions import argument, last_name, literal, names_in, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.layers import operation, operations
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import BEFORE, adjacent_layer
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Default, Example, Rule, TraceViolation, Violation, unless_intended
from dropkit.trace import Phase, Trace

_F = "torch.nn.functional."
_LINEAR = frozenset({"torch.nn.Linear", "torch.nn.LazyLinear"})
# Operations that take logits, and operations whose result is used in place of their input.
_TAKE_LOGITS = frozenset(
    {"log_softmax", "cross_entropy", "nll_loss", "binary_cross_entropy_with_logits",
     "LogSoftmax", "CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss"}
)  # fmt: skip
_PASS_ON = frozenset(
    [_F + "softmax", "torch.softmax", "torch.nn.Softmax", ".softmax", _F + "sigmoid", "torch.sigmoid", ".sigmoid",
     "torch.nn.Sigmoid", "torch.squeeze", "torch.flatten", ".squeeze", ".view", ".reshape", ".float", ".unsqueeze",
     ".permute", ".transpose", ".contiguous", ".flatten"]
)  # fmt: skip

_CLASSES = re.compile(
    r"(num|n|nb|number|no)_?(of_?)?(\w+_)?(class|label|tag|categor|target)|^n?_?class(es)?$|n_?class|vocab_?size"
    r"|n_?vocab|^ntokens?$|tagset_?size|label_?size|class_?num|out_?class|^horizon$|(forecast|predict\w*|pred|out(put)?)_?"
    r"(horizon|len(gth)?|steps?|window)$|target_?(window|len(gth)?|steps?)|^n_?(forecasts?|horizons?|targets?)$",
    re.IGNORECASE,
)
# Widths that are those of the output in a whole model; in a part of one they are not.
_OUTPUT = re.compile(r"^(n_?|num_?)?out(puts?)?(_?(dim|size|features|channels))?$|^d_out$", re.IGNORECASE)
# A width below this, of a layer that is named like a classifier, is a number of classes.
_MAX_CLASSES = 1000
_CLASSIFIER = re.compile(r"classif|logit|(^|_)head$|regressor", re.IGNORECASE)
# Names of classes that are whole models, whose last layer makes the output.
_WHOLE = Vocabulary(r"classifier|regressor|forecaster|predictor|\w*net|network|model|cnn|mlp classifier|classification")
_HIDDEN = Vocabulary(r"hidden|embed\w*|proj|projection|input|encod\w*|feed|attn|attention|bottleneck|first|in")
_PART = Vocabulary(r"block|layer|module|encoder|decoder|attention|embedding|unit|cell|stage|backbone|sub\w*|feed|ffn")
# Names of scores that are no output of the model, and of models that drop their output by design.
_NO_OUTPUT = Vocabulary(
    r"attn|attention|atten|gate|gates|gated|gating|rout(?:e|er|ing)|alpha|cluster\w*|topics?|prodlda|prod lda|dmon"
    r"|molgan|embed|embedding|embeddings|assign|assignments?|prototypes?"
)
_BY_DESIGN = Vocabulary(r"prodlda|prod lda|dmon|molgan|mol gan|topics?|cluster\w*")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.LAYER, DropoutForm.APPLICATION):
        is_layer = dropout.form is DropoutForm.LAYER
        if dropout.is_standard and (
            _ends_sequential(source, dropout.call) if is_layer else _drops_output(source, dropout)
        ):
            violation = Violation(dropout.call)
            is_no_output = _is_named_as_no_output(source, dropout.call)
            yield from unless_intended(source, violation.as_information() if is_no_output else violation)


def _ends_sequential(source: SourceFile, dropout: ast.Call) -> bool:
    """Whether `dropout` ends a Sequential, or comes before its softmax, after a layer as wide as the classes."""
    row = source.parent(dropout)
    elements = row.elts if isinstance(row, ast.List) else row.args if isinstance(row, ast.Call) else []
    star = source.parent(row) if isinstance(row, ast.List) else None
    sequential = source.parent(star) if isinstance(star, ast.Starred) else row
    if sequential is None or source.called(sequential) != "torch.nn.Sequential" or dropout not in elements[-2:]:
        return False
    after = source.called(elements[-1]) if elements[-1] is not dropout else "torch.nn.Softmax"
    if after not in SOFTMAXES or isinstance(source.parent(sequential), (ast.Call, ast.List, ast.Starred)):
        return False
    last = adjacent_layer(source, dropout, BEFORE)
    return last is not None and (
        _is_as_wide_as_classes(source, last)
        or (after == "torch.nn.LogSoftmax" and source.called(last) in _LINEAR)
        or (elements[-1] is dropout and _makes_output(source, sequential) and _is_narrow(source, last))
    )


def _makes_output(source: SourceFile, sequential: ast.AST) -> bool:
    """Whether a Sequential is kept by a whole model whose `forward` returns what it makes."""
    owner, statement = source.owner(sequential), source.parent(sequential)
    attribute = self_attribute(statement.targets[0]) if isinstance(statement, ast.Assign) else None
    calls = owner.own_calls.get(attribute, []) if owner is not None and attribute is not None else []
    return 0 < len(calls) <= MOST and all(
        _is_whole_model(source, call) and _uses(source, call) == {"output"} for call in calls
    )


def _is_whole_model(source: SourceFile, node: ast.AST) -> bool:
    """Whether `node` is in the `forward` of a class that is a whole model by its name, and no part of another."""
    owner, function = source.owner(node), source.function(node)
    return (
        owner is not None
        and function is not None
        and function.name == "forward"
        and _WHOLE.has(owner.name)
        and not _PART.has(owner.name)
        and not owner.subclasses
        and not any(source.owner(call) is not None for call in source.calls.get(owner.name, []))
    )


def _is_narrow(source: SourceFile, layer: ast.Call) -> bool:
    """Whether a linear layer has so few outputs, as a number, that they may be classes or values to predict."""
    width = literal(_width(layer))
    return isinstance(width, int) and width < _MAX_CLASSES and source.called(layer) in _LINEAR


def _drops_output(source: SourceFile, dropout: DropoutCall) -> bool:
    """Whether `dropout` drops the result of a last layer, and its own result is returned or passed to a loss."""
    is_in_loop = source.search_ancestors(dropout.call, _loops)
    if source.module(dropout.call) is None or not dropout.name or is_in_loop:
        return False
    uses = _uses(source, dropout.call)
    return "layer" not in uses and (
        "logits" in uses or ("output" in uses and _comes_from_last_layer(source, dropout.input))
    )


def _comes_from_last_layer(source: SourceFile, value: ast.expr | None) -> bool:
    return all(
        applied is not None
        and applied.layers
        and all(_is_last(source, applied.call.func, layer) for layer in applied.layers)
        for applied in operations(source, value)
    )


def _is_last(source: SourceFile, callee: ast.expr, layer: ast.Call) -> bool:
    """Whether `layer`, applied as `callee`, is a last layer, by its width or by its name."""
    name = last_name(callee)
    is_of_model = not _HIDDEN.has(name) and _is_whole_model(source, callee)
    is_last = _is_narrow(source, layer) and (_CLASSIFIER.search(name) is not None or is_of_model)
    is_named = is_of_model and any(map(_OUTPUT.search, names_in(_width(layer) or layer)))
    return is_last or is_named or _is_as_wide_as_classes(source, layer)


def _loops(_: ast.AST, above: ast.AST) -> bool | None:
    return isinstance(above, (ast.For, ast.While)) or None


def _uses(source: SourceFile, value: ast.expr) -> set[str]:
    """The uses of `value`: as "logits" of a softmax or loss, as returned "output", or as input of a "layer"."""
    uses: set[str] = set()
    pending = [(value, 0)]
    for node, renamed in pending:
        if len(pending) > MOST:
            return {"layer"}  # too many uses count as unknown
        match source.parent(source.search_ancestors(node, _part_of) or node):
            case ast.Return():
                uses.add("output")
            case ast.Call() as call:
                used = operation(source, call)
                if used is not None and used.name in _PASS_ON:
                    pending.append((call, renamed))
                elif used is not None and used.torch_name in _TAKE_LOGITS:
                    uses.add("logits")
                elif used is None or used.layers:
                    uses.add("layer")
            case ast.Assign(targets=[ast.Name(id=name), *_]) as assignment if renamed < 3:
                pending += [(read, renamed + 1) for read in readers(source, assignment, name)]
            case _:
                pass
    return uses


def _part_of(node: ast.AST, above: ast.AST) -> ast.AST | None:
    """Climb to the outermost container, keyword or conditional expression that contains a value."""
    parts = (ast.keyword, ast.Tuple, ast.List, ast.Dict, ast.Attribute, ast.IfExp)
    return None if isinstance(above, parts) else node


def _width(layer: ast.Call) -> ast.expr | None:
    """The number of outputs of `layer`."""
    return argument(layer, None, "out_channels") or argument(layer, 1, "out_features")


@cached_per_file
def _is_as_wide_as_classes(source: SourceFile, layer: ast.Call) -> bool:
    """Whether the number of outputs of `layer` is named after classes, labels or words."""
    width = _width(layer)
    if width is None or "Embedding" in (source.called(layer) or ""):
        return False
    return any(_CLASSES.search(name) for name in names_in(width))


def _is_named_as_no_output(source: SourceFile, call: ast.Call) -> bool:
    """Whether the names of the class, the method or in the statement show that the value is no output."""
    function, owner = source.function(call), source.owner(call)
    return (
        (owner is not None and _BY_DESIGN.has(owner.name))
        or (function is not None and _NO_OUTPUT.has(function.method.name))
        or _mentions_no_output(source, source.statement(call))
    )


@cached_per_file
def _mentions_no_output(source: SourceFile, statement: ast.stmt) -> bool:
    return _NO_OUTPUT.has(source.text.of(statement))


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        if any(
            visit.is_active
            and visit.origin.last == visit.origin.layer == "Linear"
            and set() < set(visit.consumers) <= {"output", "LogSoftmax"}
            for visit in site.visits_in(Phase.TRAIN)
        ):
            yield TraceViolation(site)


RULE = Rule(
    code="DRP406",
    name="dropout-on-output",
    message="dropout on the model's output zeroes its predictions",
    severity=Severity.WARNING,
    default=Default.PREVIEW,
    check_source=check_source,
    check_trace=check_trace,
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
