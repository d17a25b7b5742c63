"""Functional dropout that stays on in evaluation.

Predictions differ from call to call, validation is noisy and worse than the model is, and there is no warning.
`F.dropout(x, p)` has `training=True` by default: unlike the module `nn.Dropout` it does not see `model.eval()`. Pass
`training=self.training`, or use the module.

Mark dropout that stays on by design with `# dropkit: always-on`: beside it, on the line of its class, or at the head of
the file. A name of Monte Carlo dropout or of Tacotron's pre-net (`MCDropout`, `MonteCarloHead`, `Prenet`), and a
comment or docstring which says that dropout stays on, lower the severity to info: shown with `--severity info` only.
So does an input that is random noise, as samplers draw it. A literal `training=True` alone is DRP109.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.always_on import is_named_always_on
from dropkit.lint.semantic.attribute_usage import is_set_from_outside, is_template
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_call, dropout_calls
from dropkit.lint.semantic.dropout_names import mentions_dropout
from dropkit.lint.semantic.edits import fix, pass_training, replace
from dropkit.lint.semantic.expressions import literal, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.noise import draws_noise
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.lint.semantic.training_flag import (
    depends_on_mode,
    is_flag,
    owners_of_gated,
    runs_in_both_modes,
    serves_one_mode,
)
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation, unless_intended, violations_in_eval
from dropkit.trace import Form, Trace


def check_source(source: SourceFile) -> Iterator[Violation]:
    yield from _train_as_flag(source)
    for dropout in dropout_calls(source, DropoutForm.FUNCTION):
        if unpacks(dropout.call):
            continue
        owner = source.owner(dropout.call)
        violation = _in_helper(source, dropout) if owner is None else _in_method(source, dropout, owner)
        if violation is not None and not depends_on_mode(source, dropout.call, dropout.p):
            yield from unless_intended(source, violation, draws_noise(source, dropout.input))


def _train_as_flag(source: SourceFile) -> Iterator[Violation]:
    """`self.train`, not called, where `self.training` is meant: given to a dropout, or asked before one."""
    for node in source.attributes.get("train", []):
        owner = source.module(node)
        if self_attribute(node) is None or owner is None or owner.values("train"):
            continue
        method = owner.method("train")
        if method is not None and method.decorators:
            continue  # It may be a property that is a flag.
        wrong = _use_as_flag(source, node)
        if wrong is not None:
            edit = replace(source, node, "self.training")
            message = "self.train is a method, always true: self.training is meant"
            yield Violation(wrong, message, fix("Pass training=self.training", edit, safe=owner.has_mode))


def _use_as_flag(source: SourceFile, node: ast.Attribute) -> ast.AST | None:
    """The dropout that takes `node` as an argument, or `node` itself where it decides whether a dropout runs."""
    parent = source.parent(node)
    if isinstance(parent, ast.keyword):
        parent = source.parent(parent)
    if isinstance(parent, ast.Call) and parent.func is not node:
        is_dropout = dropout_call(source, parent) is not None or mentions_dropout(source.last_name(parent))
        return parent if is_dropout else None
    test: ast.AST = node
    while isinstance(parent, (ast.BoolOp, ast.UnaryOp)):
        test, parent = parent, source.parent(parent)
    decides = isinstance(parent, (ast.If, ast.IfExp)) and parent.test is test
    return node if decides and parent in _ancestors_of_dropouts(source) else None


@cached_per_file
def _ancestors_of_dropouts(source: SourceFile) -> set[ast.AST]:
    """Every node that contains a functional dropout."""
    ancestors: set[ast.AST] = set()
    for dropout in dropout_calls(source, DropoutForm.FUNCTION):
        node: ast.AST | None = dropout.call
        while node is not None and node not in ancestors:
            ancestors.add(node)
            node = source.parent(node)
    return ancestors


def _in_helper(source: SourceFile, dropout: DropoutCall) -> Violation | None:
    """A dropout in a function without a flag that Modules of this file call in both modes."""
    helper = source.function(dropout.call)
    if helper is None or helper.within is not None or not dropout.default_training or serves_one_mode(helper.name):
        return None
    has_flag = any(is_flag(parameter.arg) for parameter in helper.parameters)
    if has_flag or not runs_in_both_modes(source, helper.name):
        return None
    violation = Violation(dropout.call, "a function has no mode: pass training to it, and on")
    is_named = any(is_named_always_on(source, call) for call in source.calls[helper.name])
    return violation.as_information() if is_named else violation


def _in_method(source: SourceFile, dropout: DropoutCall, owner: ClassDefinition) -> Violation | None:
    """A dropout in a method of a Module without a flag, or with one that does not follow the mode."""
    attribute = self_attribute(dropout.training)
    function = source.function(dropout.call)
    if not owner.is_module or (function is not None and is_template(function.method)):
        return None
    if dropout.default_training:
        message = None
    elif literal(dropout.training) is True and owner in owners_of_gated(source):
        # A literal True is mostly meant; beside a call that does follow the mode it is an oversight.
        message = "training=True here, while a call beside it follows the mode"
    elif attribute not in (None, "training") and is_flag(attribute) and _set_once(source, owner, attribute):
        message = f"self.{attribute} is set once and does not follow model.eval()"
    else:
        return None
    return Violation(dropout.call, message, _fix(source, dropout))


@cached_per_file
def _set_once(source: SourceFile, owner: ClassDefinition, attribute: str) -> bool:
    """Whether only constructors set `self.attribute`, and nothing in this file sets it from outside."""
    writes = owner.all_writes(attribute)
    by_constructors = all(write.function is not None and write.function.name == "__init__" for write in writes)
    return bool(writes) and by_constructors and not is_set_from_outside(source, attribute)


def _fix(source: SourceFile, dropout: DropoutCall) -> Fix | None:
    # A method and a literal are true in training as well; a flag of its own may have been false there.
    changes_training = self_attribute(dropout.training) not in (None, "train", "eval")
    return pass_training(source, dropout, changes_training=changes_training)


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    return violations_in_eval(trace, Form.FUNCTION)


RULE = Rule(
    code="DRP101",
    name="functional-dropout-ignores-mode",
    message="functional dropout does not follow model.eval()",
    severity=Severity.ERROR,
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
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
-        x = F.dropout(self.hidden(x), 0.5)  # DRP101
+        x = F.dropout(self.hidden(x), 0.5, training=self.training)
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
        ),
    ),
)
