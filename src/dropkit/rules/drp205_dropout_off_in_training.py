"""Dropout that is off in training, too.

The network overfits as if it had no dropout, because it has none. `F.alpha_dropout` and `F.feature_alpha_dropout` have
`training=False` by default, unlike torch's other functions; a literal `training=False`, and a `train()` that leaves the
layer in evaluation mode, have the same effect. Pass `training=self.training`.

A literal False is meant where a name says so: code for export, inference, evaluation or a metric, by its function, its
class, its file or its folder, a frozen network, a comment beside the call. In a function that is no method it is
reported if the name of the function promises dropout, if it takes the rate, or if only Modules call it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePath

from dropkit.diagnostics import Severity
from dropkit.lint.semantic.data_flow import MOST
from dropkit.lint.semantic.definitions import FunctionDefinition
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_calls
from dropkit.lint.semantic.dropout_names import mentions_dropout
from dropkit.lint.semantic.edits import pass_training
from dropkit.lint.semantic.expressions import is_off
from dropkit.lint.semantic.identifiers import Vocabulary
from dropkit.lint.semantic.inside_tests import is_in_test
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.training_flag import depends_on_mode, runs_in_both_modes, serves_one_mode
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Phase, Trace

# Names of code that never trains, or that leaves dropout out on purpose.
_NEVER_TRAINS = Vocabulary(
    r"exports?|exporter|exporting|exportable|onnx|trt|tensorrt|tflite|coreml|openvino|trac(?:e|ed|ing)|deploy\w*"
    r"|serv(?:e|er|ing)|infer\w*|predict\w*|eval\w*|valid\w*|metrics?|fid|frozen|freeze|teachers?|perceptual|bench\w*"
    r"|tests?|testing|sampl(?:e|er|ing)|convert\w*|determinis\w*|off|identity|noop|no op"
    r"|(?:no|without|disable[ds]?|skip|un|non) ?drop\w*"
)
# The file and the folders around it whose names may say so.
_PARTS = 3
# A comment that says what the flag does shows that it is known.
_COMMENTED = Vocabulary(
    r"off|disabl\w*|never|no|not|without|don|skip\w*|ignor\w*|unused|freeze|frozen|determinis\w*|infer\w*|eval\w*|test"
    r"|intend\w*|intention\w*|purpose|only|always|because|export\w*|deploy\w*"
)


def check_source(source: SourceFile) -> Iterator[Violation]:
    for dropout in dropout_calls(source, DropoutForm.FUNCTION):
        function = source.function(dropout.call)
        if function is None or (dropout.p is not None and is_off(dropout.p)):
            continue
        if dropout.default_training is False and _may_train(source, dropout, function):
            yield Violation(dropout.call, fix=pass_training(source, dropout, changes_training=True))
        elif is_off(dropout.training) and _is_oversight(source, dropout, function):
            # A literal may be meant.
            yield Violation(dropout.call, fix=pass_training(source, dropout, changes_training=True, safe=False))


def _may_train(source: SourceFile, dropout: DropoutCall, function: FunctionDefinition) -> bool:
    """Whether a dropout with a flag that was left out is in a method of a Module, or in code that is no test."""
    return source.module(dropout.call) is not None or not (
        is_in_test(source, dropout.call) or serves_one_mode(function.method.name)
    )


def _is_oversight(source: SourceFile, dropout: DropoutCall, function: FunctionDefinition) -> bool:
    """Whether nothing says that a literal False is meant, and the code around it promises dropout."""
    owner = source.owner(dropout.call)
    names = [each.name for each in _around(function)] + [cls.name for cls in (owner.mro[:MOST] if owner else ())]
    names += PurePath(source.path).with_suffix("").parts[-_PARTS:]
    first, last = dropout.call.lineno, dropout.call.end_lineno or dropout.call.lineno
    lines = {source.statement(dropout.call).lineno - 1, *range(first - 1, last + 1)}
    comments = [source.text.line(number).partition("#")[2] for number in lines if number > 0]
    return (
        (source.module(dropout.call) is not None or _promises(source, dropout, function))
        and not any(map(_NEVER_TRAINS.has, names))
        and not any(map(_COMMENTED.has, comments))
        and not is_in_test(source, dropout.call)
        and not depends_on_mode(source, dropout.call, dropout.p)
    )


def _around(function: FunctionDefinition | None) -> list[FunctionDefinition]:
    """A function and those around it."""
    around: list[FunctionDefinition] = []
    while function is not None:
        around.append(function)
        function = function.within
    return around


def _promises(source: SourceFile, dropout: DropoutCall, function: FunctionDefinition) -> bool:
    """Whether a function is there to drop: by its name, by the rate that it takes, or by the Modules that call it."""
    around = _around(function)
    rates = {parameter.arg for each in around for parameter in each.parameters}
    if any(mentions_dropout(each.name) for each in around) or (
        isinstance(dropout.p, ast.Name) and dropout.p.id in rates
    ):
        return True
    return function.owner is None and function.within is None and runs_in_both_modes(source, function.name)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in trace.sites:
        visits = list(site.visits_in(Phase.TRAIN))
        wanted = bool(site.p) and not site.is_frozen and not site.was_active(Phase.TRAIN, Phase.EVAL)
        if wanted and visits and all(visit.training is False for visit in visits):
            yield TraceViolation(site)


RULE = Rule(
    code="DRP205",
    name="dropout-off-in-training",
    message="this dropout is off in training too",
    severity=Severity.WARNING,
    check_source=check_source,
    check_trace=check_trace,
    fix="pass `training=self.training`",
    fix_is_safe=True,
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

    def forward(self, x):
-        x = F.alpha_dropout(F.selu(self.hidden(x)), 0.1)  # DRP205
+        x = F.alpha_dropout(F.selu(self.hidden(x)), 0.1, training=self.training)
        return self.output(x)


Classifier()(torch.randn(4, 8))
""",
        ),
    ),
)
