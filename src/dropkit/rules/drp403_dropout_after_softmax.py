"""Dropout on the probabilities or log-probabilities that a model returns.

The loss is wrong, without a warning. A dropped log-probability is 0, which means certainty: where the true class is
dropped the loss is zero, and elsewhere it is scaled by 1/(1-p). Dropped probabilities do not sum to one, and a true
class with probability 0 has an infinite loss. Put dropout before the last linear layer. Dropout of attention weights is
common and not reported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from dropkit.catalog import SOFTMAX_KINDS
from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST, origins, reads_after
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_calls import DropoutForm, dropout_calls
from dropkit.lint.semantic.expressions import last_part, self_attribute
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.layers import operation
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
_LOSS = re.compile(r"loss|criterion|nll|entropy", re.IGNORECASE)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION, DropoutForm.LAYER, DropoutForm.APPLICATION):
        if not dropout.is_standard:
            continue
        if dropout.form is DropoutForm.LAYER:
            is_wrong = _row_ends(source, dropout.call)
        else:
            is_active = dropout.form is DropoutForm.APPLICATION or not dropout.never_drops
            is_wrong = is_active and _of_probabilities(source, dropout.call)
        if is_wrong:
            yield Violation(dropout.call)


def _of_probabilities(source: SourceFile, call: ast.Call) -> bool:
    """Whether what is dropped is a log_softmax, or a softmax that ends the model."""
    kinds: set[str] = set()
    for origin in origins(source, call.args[0]) if call.args else ():
        kinds.add(_kind(source, origin) if origin is not None else "")
    if kinds == {"log_softmax"}:
        return not _named(source, call, _ATTENTION)
    return (
        "softmax" in kinds <= {"log_softmax", "softmax"}
        and _is_output(source, call)
        and not _named(source, call, _WEIGHTS)
    )


def _kind(source: SourceFile, expression: ast.expr) -> str:
    applied = operation(source, expression)
    last = last_part(applied.name) if applied is not None else ""
    return {"LogSoftmax": "log_softmax", "Softmax": "softmax"}.get(last, last)


def _named(source: SourceFile, node: ast.AST, words: Vocabulary) -> bool:
    """Whether a name in the statement, or of the function or class around it, is one of `words`."""
    owner, function = source.owner(node), source.function(node)
    names = [owner.name if owner is not None else "", function.name if function is not None else ""]
    return any(words.has(name) for name in names) or _mentions(source, source.statement(node), words)


@cached_per_file
def _mentions(_: SourceFile, statement: ast.stmt, words: Vocabulary) -> bool:
    """Whether a name in a statement is one of `words`."""
    nodes = (node for node in ast.walk(statement) if isinstance(node, (ast.Name, ast.Attribute)))
    names = (node.id if isinstance(node, ast.Name) else node.attr for node in nodes)
    return any(words.has(name) for name in names if name not in ("self", "nn", "torch", "F"))


def _is_output(source: SourceFile, call: ast.Call) -> bool:
    """Whether the result of `call` is only returned by `forward` or passed to a loss."""
    statement = source.statement(call)
    function = source.function(call)
    if isinstance(statement, ast.Return) and statement.value is call:
        return function is not None and function.name == "forward"
    target = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is call else None
    if not isinstance(target, ast.Name):
        return False
    forward = function is not None and function.name == "forward"
    uses = [source.parent(read) for read in reads_after(source, target.id, statement)]
    few = 0 < len(uses) <= MOST
    return few and all((forward and isinstance(use, ast.Return)) or _is_loss(source, use) for use in uses)


def _is_loss(source: SourceFile, use: ast.AST | None) -> bool:
    return isinstance(use, ast.Call) and _LOSS.search(f"{source.text.of(use.func)} {source.called(use)}") is not None


def _row_ends(source: SourceFile, call: ast.Call) -> bool:
    """Whether a dropout layer comes after LogSoftmax, or after the Softmax at the end of returned layers."""
    before = adjacent_layer(source, call, BEFORE)
    name = source.called(before) if before is not None else None
    if name == "torch.nn.LogSoftmax":
        return not _named(source, call, _ATTENTION)
    if name != "torch.nn.Softmax" or _named(source, call, _WEIGHTS):
        return False
    row = source.parent(call)
    assignment = source.parent(row) if isinstance(row, ast.Call) and row.args[-1] is call else None
    owner = source.owner(call)
    if owner is None or not isinstance(assignment, ast.Assign):
        return False
    return _returned(source, owner, self_attribute(assignment.targets[0]))


@cached_per_file
def _returned(source: SourceFile, owner: ClassDefinition, attribute: str | None) -> bool:
    """Whether `forward` only returns `self.attribute(...)`."""
    calls = owner.own_calls.get(attribute or "", [])
    return bool(calls) and all(_is_output(source, call) for call in calls)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        for visit in site.visits_in(Phase.TRAIN):
            if visit.origin.last in SOFTMAX_KINDS and visit.consumers == ["output"]:
                yield TraceViolation(site)
                break


RULE = Rule(
    code="DRP403",
    name="dropout-after-softmax",
    message="dropout on the probabilities that a model returns",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    examples=(
        Example(
            bad="""
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
        x = self.dropout(F.log_softmax(self.output(x), dim=1))  # DRP403
        return x


F.nll_loss(Classifier()(torch.randn(4, 8)), torch.tensor([0, 1, 0, 1]))
""",
            good="""
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
        x = F.log_softmax(self.output(x), dim=1)
        return x


F.nll_loss(Classifier()(torch.randn(4, 8)), torch.tensor([0, 1, 0, 1]))
""",
        ),
    ),
)
