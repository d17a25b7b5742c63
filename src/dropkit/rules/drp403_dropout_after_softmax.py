"""Dropout on the probabilities or log-probabilities that a model returns.

The loss is wrong, without a warning. A dropped log-probability is 0, which means certainty: where the true class is
dropped the loss is zero, and elsewhere it is scaled by 1/(1-p). Dropped probabilities do not sum to one, and a true
class with probability 0 has an infinite loss; so has one whose sigmoid is dropped. Put dropout before the last linear
layer. Dropout of attention weights is common and not reported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import SOFTMAX_KINDS
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST, reads_after
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls, names_before, operations_before
from dropkit.lint.semantic.expressions import names_in, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.last_layers import comes_from_last_layer, ends_model, is_as_wide_as_classes, is_whole_name
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.sequence import BEFORE, adjacent_layer
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

# Names of weights, which are no output of a model. log_softmax has few of them, since its results weight nothing.
_SCORES = r"att|attn|atten|attention|attentions|score|scores|alpha|alphas|weight|weights|weighted|align\w*"
_ATTENTION = Vocabulary(_SCORES)
_WEIGHTS = Vocabulary(
    _SCORES + r"|beta|betas|kernels?|dynamic|gate|gates|gated|gating|rout(?:e|er|ing)|mix|mixing|mixture|adj"
    r"|adjacency|edges?|graph|topics?|theta|assign\w*|cluster\w*|experts?|coef\w*|affin\w*|similar\w*|corr|correlation|memory"
    r"|slots?|select|selector|selection|energy|heat|heatmaps?|relations?|aggr\w*"
)
_LOG_SOFTMAX = frozenset({"LogSoftmax", "log_softmax"})
_SOFTMAX = _LOG_SOFTMAX | {"Softmax", "softmax"}
_SIGMOID = frozenset({"Sigmoid", "sigmoid"})
_ROWS = (ast.Tuple, ast.List, ast.Dict)
_LOSS = re.compile(r"loss|criterion|nll|entropy", re.IGNORECASE)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.LAYER, DropoutForm.APPLICATION):
        if not dropout.is_standard or (dropout.form is DropoutForm.FUNCTION and dropout.never_drops):
            continue
        before = names_before(source, dropout)
        if before <= _LOG_SOFTMAX:
            is_wrong = not _is_named(source, dropout.call, _ATTENTION)
        else:
            is_probability = before <= _SOFTMAX or (before <= _SIGMOID and _is_of_last_layer(source, dropout))
            is_wrong = is_probability and _is_output(source, dropout) and not _is_named(source, dropout.call, _WEIGHTS)
        if is_wrong:
            yield Violation(dropout.call)


def _is_of_last_layer(source: SourceFile, dropout: DropoutCall) -> bool:
    """Whether what is before a dropout is applied to the result of a last layer; a sigmoid is inside of models, too."""
    before = [applied for applied in operations_before(source, dropout) if applied is not None]
    if dropout.form is not DropoutForm.LAYER:
        return all(comes_from_last_layer(source, applied.input) for applied in before)
    last = [adjacent_layer(source, applied.call, BEFORE) for applied in before]
    owner = source.owner(dropout.call)
    is_model = owner is not None and is_whole_name(owner.name)
    return all(
        layer is not None and (is_as_wide_as_classes(source, layer) or (is_model and ends_model(source, layer)))
        for layer in last
    )


def _is_named(source: SourceFile, node: ast.AST, words: Vocabulary) -> bool:
    """Whether a name in the statement, or of the function or class around it, is one of `words`."""
    around = [definition.name for definition in (source.owner(node), source.function(node)) if definition is not None]
    return any(words.has(name) for name in around) or _mentions(source, source.statement(node), words)


@cached_per_file
def _mentions(_: SourceFile, statement: ast.stmt, words: Vocabulary) -> bool:
    return any(words.has(name) for name in names_in(statement))


def _is_output(source: SourceFile, dropout: DropoutCall) -> bool:
    """Whether the result, for a layer that of the Sequential that it ends, is only returned or passed to a loss."""
    if dropout.form is not DropoutForm.LAYER:
        return _is_returned(source, dropout.call)
    row, owner = source.parent(dropout.call), source.owner(dropout.call)
    assignment = source.parent(row) if isinstance(row, ast.Call) and row.args[-1] is dropout.call else None
    if owner is None or not isinstance(assignment, ast.Assign):
        return False
    calls = owner.own_calls.get(self_attribute(assignment.targets[0]) or "", [])
    return 0 < len(calls) <= MOST and all(_is_returned(source, call) for call in calls)


def _is_returned(source: SourceFile, call: ast.Call) -> bool:
    """Whether the result of `call` is only returned by `forward` or passed to a loss."""
    function = source.function(call)
    is_forward = function is not None and function.name == "forward"
    match source.user(call, _ROWS):
        case ast.Return():
            return is_forward
        case ast.Assign(targets=[ast.Name(id=name), *_]) as statement:
            reads = reads_after(source, name, statement)
            uses = [source.user(read, _ROWS) for read in reads]
            return 0 < len(uses) <= MOST and all(
                (is_forward and isinstance(use, ast.Return)) or _is_loss(source, use) for use in uses
            )
        case _:
            return False


def _is_loss(source: SourceFile, use: ast.AST | None) -> bool:
    return isinstance(use, ast.Call) and _LOSS.search(f"{source.text.of(use.func)} {source.called(use)}") is not None


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        visits = site.visits_in(Phase.TRAIN)
        if any(visit.origin.last in SOFTMAX_KINDS and visit.consumers == ["output"] for visit in visits):
            yield TraceViolation(site)


RULE = Rule(
    code="DRP403",
    name="dropout-after-softmax",
    message="dropout on the probabilities that a model returns",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            """
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 16)
        self.output = nn.Linear(16, 2)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        x = self.dropout(F.relu(self.hidden(x)))
-        x = self.dropout(F.log_softmax(self.output(x), dim=1))  # DRP403
+        x = F.log_softmax(self.output(x), dim=1)
        return x


F.nll_loss(Classifier()(torch.randn(4, 8)), torch.tensor([0, 1, 0, 1]))
""",
        ),
    ),
)
