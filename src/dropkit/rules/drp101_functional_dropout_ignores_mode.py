"""Functional dropout that stays on in evaluation.

Predictions differ from call to call, validation is noisy and worse than the model is, and there is no warning.
`F.dropout(x, p)` has `training=True` by default: unlike the module `nn.Dropout` it does not see `model.eval()`. Pass
`training=self.training`, or use the module.

Mark dropout that stays on by design with `# dropkit: always-on`: beside it, on the line of its class, or at the head of
the file. A name of Monte Carlo dropout or of Tacotron's pre-net (`MCDropout`, `MonteCarloHead`, `Prenet`), and a
comment or docstring which says that dropout stays on, lower the severity to info: shown with `--severity info` only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.always_on import named_around, on_purpose
from dropkit.lint.semantic.attribute_usage import is_set_from_outside
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.dropout_calls import DropoutCall, DropoutForm, dropout_call, dropout_calls
from dropkit.lint.semantic.dropout_names import mentions_dropout
from dropkit.lint.semantic.edits import add_argument, replace
from dropkit.lint.semantic.expressions import self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile
from dropkit.lint.semantic.syntax_tree import cached_per_file
from dropkit.lint.semantic.training_flag import depends_on_mode, follows_mode, is_flag, serves_one_mode, under_mode
from dropkit.rules.rule import (
    Example,
    Rule,
    TraceViolation,
    Violation,
    active_in_eval,
    ignores_its_flag,
    severity_in_eval,
    unless_intended,
)
from dropkit.trace import Form, Trace

_TITLE = "Pass training=self.training"


def check_source(source: SourceFile) -> Iterator[Violation]:
    yield from _train_as_flag(source)
    for dropout in dropout_calls(source, DropoutForm.FUNCTION):
        if unpacks(dropout.call):
            continue
        owner = source.owner(dropout.call)
        violation = _in_helper(source, dropout) if owner is None else _in_method(source, dropout, owner)
        if violation is not None and not depends_on_mode(source, dropout.call, dropout.p):
            yield from unless_intended(source, violation)


def _train_as_flag(source: SourceFile) -> Iterator[Violation]:
    """`self.train`, not called, where `self.training` is meant: given to a dropout, or asked before one."""
    for node in source.attributes.get("train", []):
        owner = source.owner(node)
        if self_attribute(node) is None or owner is None or not owner.is_module or owner.values("train"):
            continue
        method = owner.method("train")
        if method is not None and method.node.decorator_list:  # pyright: ignore[reportAttributeAccessIssue]: no lambda
            continue  # It may be a property that is a flag.
        wrong = _use_as_flag(source, node)
        if wrong is not None:
            message = "self.train is a method, always true: self.training is meant"
            yield Violation(wrong, message, Fix(_TITLE, (replace(source, node, "self.training"),), safe=owner.has_mode))


def _use_as_flag(source: SourceFile, node: ast.Attribute) -> ast.AST | None:
    """The dropout that takes `node` as an argument, or `node` itself where it decides whether a dropout runs."""
    parent = source.parent(node)
    if isinstance(parent, ast.keyword):
        parent = source.parent(parent)
    if isinstance(parent, ast.Call) and parent.func is not node:
        return (
            parent if dropout_call(source, parent) is not None or mentions_dropout(source.last_name(parent)) else None
        )
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
    if helper is None or helper.within is not None or not _is_on_by_default(dropout):
        return None
    if serves_one_mode(helper.name) or any(is_flag(parameter.arg) for parameter in helper.parameters):
        return None
    if not _runs_in_both_modes(source, helper.name):
        return None
    violation = Violation(dropout.call, "a function has no mode: pass training to it, and on")
    is_named = any(named_around(source, call) for call in source.calls[helper.name])
    return violation.as_information() if is_named else violation


def _is_on_by_default(dropout: DropoutCall) -> bool:
    """Whether no flag is given, and the function drops without one."""
    return dropout.training is None and dropout.signature is not None and dropout.signature.training_default is True


@cached_per_file
def _runs_in_both_modes(source: SourceFile, helper: str) -> bool:
    """Whether a function is called, and by Modules only, none of which asks for the mode before it calls."""
    calls = [call for call in source.calls.get(helper, []) if isinstance(call.func, ast.Name)]
    is_gated = any(under_mode(source, call) or follows_mode(source, call) or on_purpose(source, call) for call in calls)
    by_modules = all((owner := source.owner(call)) is not None and owner.is_module for call in calls)
    return bool(calls) and by_modules and not is_gated


def _in_method(source: SourceFile, dropout: DropoutCall, owner: ClassDefinition) -> Violation | None:
    call, flag = dropout.call, dropout.training
    if not owner.is_module:
        return None
    if flag is None:
        return Violation(call, fix=_fix(source, dropout, owner)) if _is_on_by_default(dropout) else None
    if isinstance(flag, ast.Constant):
        # A literal True is mostly meant; beside a call that does follow the mode it is an oversight.
        if flag.value is True and owner in _owners_of_gated(source):
            return Violation(
                call, "training=True here, while a call beside it follows the mode", _fix(source, dropout, owner)
            )
        return None
    attribute = self_attribute(flag)
    if attribute in ("train", "eval") and not owner.values(attribute):
        return None  # Reported as a method that stands for a flag.
    if attribute is not None and attribute != "training" and is_flag(attribute) and _set_once(source, owner, attribute):
        message = f"self.{attribute} is set once and does not follow model.eval()"
        return Violation(call, message, _fix(source, dropout, owner))
    return None


@cached_per_file
def _owners_of_gated(source: SourceFile) -> set[ClassDefinition | None]:
    """The classes with a functional dropout that `self.training` switches."""
    gated = (
        dropout
        for dropout in dropout_calls(source, DropoutForm.FUNCTION)
        if self_attribute(dropout.training) == "training"
    )
    return {source.owner(dropout.call) for dropout in gated}


@cached_per_file
def _set_once(source: SourceFile, owner: ClassDefinition, attribute: str) -> bool:
    """Whether only constructors set `self.attribute`, and nothing in this file sets it from outside."""
    writes = owner.all_writes(attribute)
    by_constructors = all(write.function is not None and write.function.name == "__init__" for write in writes)
    return bool(writes) and by_constructors and not is_set_from_outside(source, attribute)


def _fix(source: SourceFile, dropout: DropoutCall, owner: ClassDefinition) -> Fix | None:
    name = source.self_name(dropout.call)
    if name is None or dropout.signature is None:
        return None
    text = f"{name}.training"
    if dropout.training is not None:
        # A method and a literal are true in training as well; a flag of its own may have been false there.
        changes = self_attribute(dropout.training) not in (None, "train", "eval")
        return Fix(_TITLE, (replace(source, dropout.training, text),), safe=owner.has_mode, changes_training=changes)
    edit = add_argument(source, dropout.call, f"{dropout.signature.training_name}={text}")
    return Fix(_TITLE, (edit,), safe=owner.has_mode) if edit is not None else None


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in active_in_eval(trace):
        if site.form is Form.FUNCTION or (site.form is Form.REGISTERED and ignores_its_flag(site, by_hand=False)):
            yield TraceViolation(site, severity=severity_in_eval(site))


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
            bad="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        x = F.dropout(self.hidden(x), 0.5)  # DRP101
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
            good="""
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 8)
        self.output = nn.Linear(8, 2)

    def forward(self, x):
        x = F.dropout(self.hidden(x), 0.5, training=self.training)
        return self.output(x)


Classifier().eval()(torch.randn(4, 8))
""",
        ),
    ),
)
