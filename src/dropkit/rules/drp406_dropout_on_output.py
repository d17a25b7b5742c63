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
from dropkit.lint.semantic.always_on import named_around, on_purpose
from dropkit.lint.semantic.data_flow import MOST, origins, readers
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.expressions import argument
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.layers import operation
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import BEFORE, adjacent_layer
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Default, Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

_F = "torch.nn.functional."
_LINEAR = frozenset({"torch.nn.Linear", "torch.nn.LazyLinear"})
# Operations from logits to probabilities, and losses.
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
# A width below this, of a layer that is named like a classifier, is a number of classes.
_MAX_CLASSES = 1000
_CLASSIFIER = re.compile(r"classif|logit", re.IGNORECASE)
# Names of scores that are no output of the model, and of models that drop their output by design.
_NO_OUTPUT = Vocabulary(
    r"attn|attention|atten|gate|gates|gated|gating|rout(?:e|er|ing)|alpha|cluster\w*|topics?|prodlda|prod lda|dmon"
    r"|molgan|embed|embedding|embeddings|assign|assignments?|prototypes?"
)
_BY_DESIGN = Vocabulary(r"prodlda|prod lda|dmon|molgan|mol gan|topics?|cluster\w*")


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.LAYER, DropoutForm.APPLICATION):
        call, is_layer = dropout.call, dropout.form is DropoutForm.LAYER
        is_last = _ends_sequential(source, call) if is_layer else _drops_output(source, dropout)
        if dropout.is_standard and is_last and not on_purpose(source, call):
            by_name = _is_named_as_no_output(source, call) or named_around(source, call)
            yield Violation(call).as_information() if by_name else Violation(call)


def _ends_sequential(source: SourceFile, dropout: ast.Call) -> bool:
    """Whether `dropout` ends a Sequential, or comes before its softmax, after a layer as wide as the classes."""
    row: ast.AST | None = source.parent(dropout)
    elements = row.elts if isinstance(row, ast.List) else row.args if isinstance(row, ast.Call) else []
    if dropout not in elements[-2:]:
        return False
    after = elements[-1:] if elements[-1] is not dropout else []
    if any(source.called(layer) not in SOFTMAXES for layer in after):
        return False
    if isinstance(row, ast.List):
        star = source.parent(row)
        row = source.parent(star) if isinstance(star, ast.Starred) else None
    if row is None or source.called(row) != "torch.nn.Sequential":
        return False
    if isinstance(source.parent(row), (ast.Call, ast.List, ast.Starred)):
        return False
    last = adjacent_layer(source, dropout, BEFORE)
    has_log_softmax = bool(after) and source.called(after[0]) == "torch.nn.LogSoftmax"
    return last is not None and (
        _is_as_wide_as_classes(source, last) or (has_log_softmax and source.called(last) in _LINEAR)
    )


def _drops_output(source: SourceFile, dropout: DropoutCall) -> bool:
    """Whether `dropout` drops the result of a last layer, and its own result is returned or passed to a loss."""
    call, owner = dropout.call, source.owner(dropout.call)
    if owner is None or not owner.is_module or not dropout.name:
        return False
    if dropout.input is None or source.search_ancestors(call, _loops):
        return False
    uses = _uses(source, call)
    if "layer" in uses:
        return False
    return "logits" in uses or ("output" in uses and _comes_from_last_layer(source, dropout.input))


def _comes_from_last_layer(source: SourceFile, value: ast.expr) -> bool:
    before = [operation(source, origin) for origin in origins(source, value)]
    return bool(before) and all(
        applied is not None
        and applied.layers
        and all(_is_last(source, applied.call.func, layer) for layer in applied.layers)
        for applied in before
    )


def _is_last(source: SourceFile, callee: ast.expr, layer: ast.Call) -> bool:
    """Whether `layer`, applied as `callee`, is a last layer, by its width or by its name."""
    if _is_as_wide_as_classes(source, layer):
        return True
    width = _width(layer)
    is_narrow = isinstance(width, ast.Constant) and isinstance(width.value, int) and width.value < _MAX_CLASSES
    is_classifier = isinstance(callee, ast.Attribute) and _CLASSIFIER.search(callee.attr) is not None
    return is_narrow and is_classifier and source.called(layer) in _LINEAR


def _loops(_: ast.AST, above: ast.AST) -> bool | None:
    return isinstance(above, (ast.For, ast.While)) or None


def _uses(source: SourceFile, value: ast.expr) -> set[str]:
    """The uses of `value`: as "logits" of a softmax or loss, as returned "output", or as input of a "layer"."""
    uses: set[str] = set()
    seen: set[ast.expr] = set()
    pending = [(value, 0)]
    for node, renamed in pending:
        if node in seen:
            continue
        seen.add(node)
        if len(pending) > MOST:
            return {"layer"}  # too many uses count as unknown
        whole = source.search_ancestors(node, _part_of) or node
        above = source.parent(whole)
        if isinstance(above, ast.Return):
            uses.add("output")
        elif isinstance(above, ast.Call):
            used = operation(source, above)
            name = used.name if used is not None else ""
            if name in _LOG_SOFTMAX or name in _LOSSES or (name in _LOSS_MODULES and used is not None and used.layers):
                uses.add("logits")
            elif name in _PROBABILITIES:
                pending.append((above, renamed))
            elif used is None or used.layers:
                uses.add("layer")
        elif isinstance(above, ast.Assign) and isinstance(above.targets[0], ast.Name) and renamed < 3:
            pending += [(read, renamed + 1) for read in readers(source, above, above.targets[0].id)]
    return uses


def _part_of(node: ast.AST, above: ast.AST) -> ast.AST | None:
    """Climb to the outermost container, keyword or conditional expression that contains a value."""
    parts = (ast.keyword, ast.Tuple, ast.List, ast.Dict, ast.Attribute, ast.IfExp)
    return None if isinstance(above, parts) else node


def _width(layer: ast.Call) -> ast.expr | None:
    """The number of outputs of `layer`."""
    names = ("out_features", "out_channels")
    widths = [width for name in names if (width := argument(layer, None, name)) is not None]
    return widths[0] if widths else layer.args[1] if len(layer.args) > 1 else None


@cached_per_file
def _is_as_wide_as_classes(source: SourceFile, layer: ast.Call) -> bool:
    """Whether the number of outputs of `layer` is named after classes, labels or words."""
    width = _width(layer)
    if width is None or "Embedding" in (source.called(layer) or ""):
        return False
    nodes = (node for node in ast.walk(width) if isinstance(node, (ast.Attribute, ast.Name)))
    names = [node.attr if isinstance(node, ast.Attribute) else node.id for node in nodes]
    return any(_CLASSES.search(name) for name in names)


def _is_named_as_no_output(source: SourceFile, call: ast.Call) -> bool:
    """Whether the names of the class, the method or in the statement show that the value is no output."""
    function, owner = source.function(call), source.owner(call)
    name = function.method.name if function is not None else ""
    by_design = owner is not None and _BY_DESIGN.has(owner.name)
    return by_design or _NO_OUTPUT.has(name) or _mentions_no_output(source, source.statement(call))


@cached_per_file
def _mentions_no_output(source: SourceFile, statement: ast.stmt) -> bool:
    return _NO_OUTPUT.has(source.text.of(statement))


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        for visit in site.visits_in(Phase.TRAIN):
            ends = bool(visit.consumers) and set(visit.consumers) <= {"output", "LogSoftmax"}
            if visit.is_active and ends and visit.origin.last == visit.origin.layer == "Linear":
                yield TraceViolation(site)
                break


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
