"""Dropout on the output of the whole model.

The model trains badly: random logits of every sample, sometimes that of the true class, are zero in the loss. Dropout
teaches the next layer not to rely on single inputs, and after the last layer there is no next one. Put it before the
last layer.

The last layer is recognised by its width (such as `num_classes`, `vocab_size`), or by the softmax or loss after it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import SOFTMAXES
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST, readers
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.expressions import given, last_name, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.last_layers import (
    comes_from_last_layer,
    ends_model,
    is_as_wide_as_classes,
    is_whole_model,
    is_whole_name,
)
from dropkit.lint.semantic.layers import operation
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import BEFORE, adjacent_layer, row_around
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, unless_intended
from dropkit.trace import Phase, Trace

_F = "torch.nn.functional."
_LINEAR = frozenset({"torch.nn.Linear", "torch.nn.LazyLinear"})
# Layers that make probabilities of logits.
_PROBABILITIES = SOFTMAXES | {"torch.nn.Sigmoid"}
# Operations that take logits, and operations whose result is used in place of their input.
_TAKE_LOGITS = frozenset(
    {"log_softmax", "cross_entropy", "nll_loss", "binary_cross_entropy_with_logits",
     "LogSoftmax", "CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss"}
)  # fmt: skip
_PASS_ON = frozenset(
    [_F + "softmax", "torch.softmax", "torch.nn.Softmax", ".softmax", _F + "sigmoid", "torch.sigmoid", ".sigmoid",
     "torch.nn.Sigmoid", _F + "interpolate", _F + "upsample", "torch.squeeze", "torch.flatten", ".squeeze", ".view",
     ".reshape", ".float", ".unsqueeze", ".permute", ".transpose", ".contiguous", ".flatten"]
)  # fmt: skip
# What a value is a part of, and used with.
_CONTAINERS = (ast.keyword, ast.Tuple, ast.List, ast.Dict, ast.Attribute, ast.IfExp)
# What libraries call the last layer of a model.
_HEADS = frozenset({"fc", "classifier", "head", "heads", "last_linear"})
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
            is_no_output = _is_named_as_no_output(source, dropout.call)
            yield from unless_intended(source, Violation(dropout.call), is_no_output)


def _ends_sequential(source: SourceFile, dropout: ast.Call) -> bool:
    """Whether `dropout` ends a Sequential, or comes before its softmax, after a layer as wide as the classes."""
    sequential, elements = row_around(source, dropout)
    if sequential is None or isinstance(source.parent(sequential), (ast.Call, ast.List, ast.Starred)):
        return False
    is_end = elements[-1] is dropout
    after = "torch.nn.Softmax" if is_end else source.called(elements[-1])
    last = adjacent_layer(source, dropout, BEFORE) if dropout in elements[-2:] and after in _PROBABILITIES else None
    return last is not None and (
        is_as_wide_as_classes(source, last)
        or (after == "torch.nn.LogSoftmax" and source.called(last) in _LINEAR)
        or (is_end and _makes_output(source, sequential) and ends_model(source, last))
    )


def _makes_output(source: SourceFile, sequential: ast.AST) -> bool:
    """Whether a Sequential is a whole model, or is kept by one whose `forward` returns what it makes."""
    owner, statement = source.owner(sequential), source.parent(sequential)
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) if is_whole_name(name):
            return not any(_is_part(source, use) for use in source.mentions.get(name, [])[:MOST])
        case ast.Assign(targets=[ast.Attribute(value=ast.expr() as model, attr=name)]) if last_name(model) != "self":
            return name in _HEADS  # model.fc = nn.Sequential(...)
        case ast.Assign(targets=[target]):
            attribute = self_attribute(target)
        case ast.Return():
            function = source.function(statement)
            return owner is None and function is not None and is_whole_name(function.name)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return is_whole_name(name)
        case _:
            return False
    calls = owner.own_calls.get(attribute, []) if owner is not None and attribute is not None else []
    return 0 < len(calls) <= MOST and all(
        is_whole_model(source, call) and _uses(source, call) == {"output"} for call in calls
    )


def _is_part(source: SourceFile, use: ast.Name) -> bool:
    """Whether a model is given to the class of another one: `nn.Sequential(net, head)`, `Siamese(net)`."""
    call = source.parent(use)
    is_given = isinstance(call, ast.Call) and use in given(call) and last_name(call)[:1].isupper()
    return is_given or isinstance(call, (ast.List, ast.Tuple, ast.Starred))


def _drops_output(source: SourceFile, dropout: DropoutCall) -> bool:
    """Whether `dropout` drops the result of a last layer, and its own result is returned or passed to a loss."""
    is_in_loop = source.search_ancestors(dropout.call, _loops)
    if source.module(dropout.call) is None or not dropout.name or is_in_loop:
        return False
    uses = _uses(source, dropout.call)
    return "layer" not in uses and (
        "logits" in uses or ("output" in uses and comes_from_last_layer(source, dropout.input))
    )


def _loops(_: ast.AST, above: ast.AST) -> bool | None:
    return isinstance(above, (ast.For, ast.While)) or None


def _uses(source: SourceFile, value: ast.expr) -> set[str]:
    """The uses of `value`: as "logits" of a softmax or loss, as returned "output", or as input of a "layer"."""
    uses: set[str] = set()
    pending = [(value, 0)]
    for node, renamed in pending:
        if len(pending) > MOST:
            return {"layer"}  # too many uses count as unknown
        match source.user(node, _CONTAINERS):
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
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            """
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
-        return self.dropout(self.output(x))  # DRP406
+        return self.output(self.dropout(x))


Classifier(3).eval()(torch.randn(4, 8))
""",
        ),
    ),
)
