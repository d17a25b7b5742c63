"""Functional dropout that stays on in evaluation.

`F.dropout(x, p)` has `training=True` unless told otherwise: unlike the module `nn.Dropout` it does not see
`model.eval()`. Predictions then differ from call to call, validation is noisy and worse than the model is, and nothing
warns. Pass `training=self.training`, or use the module.

Dropout that is meant to stay on says so by `# dropkit: always-on` beside it, on the line of its class or at the head of
the file. The names of Monte Carlo dropout and of Tacotron's pre-net (`MCDropout`, `MonteCarloHead`, `Prenet`), and a
comment or docstring that says that dropout stays on, make it information, which is shown with `--severity info` and
fails no run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dropkit.catalog import FUNCTIONALS, Functional
from dropkit.diagnostics import Fix, Severity
from dropkit.lint.semantic.definitions import ClassDefinition
from dropkit.lint.semantic.edits import add_argument, replace
from dropkit.lint.semantic.expressions import argument, self_attribute, unpacks
from dropkit.lint.semantic.model import SourceFile, once
from dropkit.lint.semantic.training_flag import (
    called_under_mode,
    follows_mode,
    is_flag,
    named_around,
    on_purpose,
    serves_one_mode,
    under_mode,
)
from dropkit.rules._stays_on import active_in_eval, for_information, ignores_its_flag, severity, unless_meant
from dropkit.rules.rule import Example, Rule, TraceViolation, Violation
from dropkit.trace import Form, Trace

_TITLE = "Pass training=self.training"


def check_source(source: SourceFile) -> Iterator[Violation]:
    yield from _methods_for_flags(source)
    for name, calls in source.calls.items():
        if "drop" not in name and "stochastic" not in name:
            continue
        for call in calls:
            function = FUNCTIONALS.get(source.called(call) or "")
            owner = source.owner(call)
            if function is None or unpacks(call):
                continue
            hit = _judge(source, call, function, owner) if owner is not None else _judge_helper(source, call, function)
            if hit is not None and not _excused(source, call, function):
                yield from unless_meant(source, hit)


def _methods_for_flags(source: SourceFile) -> Iterator[Violation]:
    """`self.train`, not called, where `self.training` is meant: given to something that drops, or asked before it."""
    for node in source.attributes.get("train", []):
        owner = source.owner(node)
        if self_attribute(node) is None or owner is None or not owner.is_module or owner.values("train"):
            continue
        method = owner.method("train")
        if method is not None and method.node.decorator_list:  # pyright: ignore[reportAttributeAccessIssue]: no lambda
            continue  # a property, perhaps, that is a flag
        place = _place(source, node)
        if place is not None:
            message = "self.train is a method, always true: self.training is meant"
            yield Violation(place, message, Fix(_TITLE, (replace(source, node, "self.training"),), safe=owner.has_mode))


def _place(source: SourceFile, node: ast.Attribute) -> ast.AST | None:
    """What to point at: the dropping call that takes `node` as an argument, or `node` where it guards such a call."""
    above = source.parent(node)
    if isinstance(above, ast.keyword):
        above = source.parent(above)
    if isinstance(above, ast.Call) and above.func is not node:
        callee = above.func
        last = callee.attr if isinstance(callee, ast.Attribute) else callee.id if isinstance(callee, ast.Name) else ""
        return above if "drop" in last.lower() or source.called(above) in FUNCTIONALS else None
    below: ast.AST = node
    while isinstance(above, (ast.BoolOp, ast.UnaryOp)):
        below, above = above, source.parent(above)
    asks = isinstance(above, (ast.If, ast.IfExp)) and above.test is below
    return node if asks and above in _around_drops(source) else None


@once
def _around_drops(source: SourceFile) -> set[ast.AST]:
    """Every node that a call of a function that drops stands in."""
    found: set[ast.AST] = set()
    for calls in source.calls.values():
        for call in calls:
            at: ast.AST | None = call if source.called(call) in FUNCTIONALS else None
            while at is not None and at not in found:
                found.add(at)
                at = source.parent(at)
    return found


def _judge_helper(source: SourceFile, call: ast.Call, function: Functional) -> Violation | None:
    """A function without a flag, at work in Modules of this file, none of which asks for the mode before it calls."""
    helper = source.function(call)
    if helper is None or helper.within is not None or function.training_default is not True:
        return None
    if argument(call, function.training, function.training_name) is not None:
        return None
    if serves_one_mode(helper.name) or any(is_flag(parameter.arg) for parameter in helper.parameters):
        return None
    if not _is_at_work_unasked(source, helper.name):
        return None
    hit = Violation(call, "a function has no mode: pass training to it, and on")
    meant = any(named_around(source, use) for use in source.calls[helper.name])
    return for_information(hit) if meant else hit


@once
def _is_at_work_unasked(source: SourceFile, name: str) -> bool:
    """Whether a function is called, and by Modules only, none of which asks for the mode before it calls."""
    uses = [use for use in source.calls.get(name, []) if isinstance(use.func, ast.Name)]
    asked = any(under_mode(source, use) or follows_mode(source, use) or on_purpose(source, use) for use in uses)
    at_work = all((owner := source.owner(use)) is not None and owner.is_module for use in uses)
    return bool(uses) and at_work and not asked


def _judge(source: SourceFile, call: ast.Call, function: Functional, owner: ClassDefinition) -> Violation | None:
    if not owner.is_module:
        return None
    flag = argument(call, function.training, function.training_name)
    if flag is None:
        if function.training_default is not True:
            return None
        return Violation(call, fix=_fix(source, call, None))
    if isinstance(flag, ast.Constant):
        # A literal True is mostly meant; beside a call that does follow the mode it is an oversight.
        if flag.value is True and _another_follows(source, call, owner):
            return Violation(
                call, "training=True here, while a call beside it follows the mode", _fix(source, call, flag)
            )
        return None
    attribute = self_attribute(flag)
    if attribute in ("train", "eval") and not owner.values(attribute):
        return None  # found as a method that stands for a flag
    if attribute is not None and attribute != "training" and is_flag(attribute) and _set_once(source, owner, attribute):
        message = f"self.{attribute} is set once and does not follow model.eval()"
        return Violation(call, message, _fix(source, call, flag))
    return None


def _excused(source: SourceFile, call: ast.Call, function: Functional) -> bool:
    """A condition around the call asks for the mode, or the rate is zero or follows it."""
    p = argument(call, function.p, function.p_name)
    if isinstance(p, ast.Constant) and p.value in (0, 0.0):
        return True
    if p is not None and follows_mode(source, p):
        return True
    return under_mode(source, call) or called_under_mode(source, call)


def _another_follows(source: SourceFile, call: ast.Call, owner: ClassDefinition) -> bool:
    return any(other is not call for other in _following(source).get(owner, []))


@once
def _following(source: SourceFile) -> dict[ClassDefinition | None, list[ast.Call]]:
    """By class, calls of functions that drop where `self.training` says so: two at most."""
    found: dict[ClassDefinition | None, list[ast.Call]] = {}
    for calls in source.calls.values():
        for call in calls:
            function = FUNCTIONALS.get(source.called(call) or "")
            flag = argument(call, function.training, function.training_name) if function is not None else None
            if self_attribute(flag) == "training":
                known = found.setdefault(source.owner(call), [])
                known += [call] if len(known) < 2 else []
    return found


@once
def _set_once(source: SourceFile, owner: ClassDefinition, attribute: str) -> bool:
    """Whether only constructors set `self.attribute`, and no one in this file does from outside."""
    writes = owner.all_writes(attribute)
    inside = writes and all(write.function is not None and write.function.name == "__init__" for write in writes)
    from_outside = any(
        isinstance(node.ctx, ast.Store) and self_attribute(node) is None
        for node in source.attributes.get(attribute, [])
    )
    return bool(inside) and not from_outside


def _fix(source: SourceFile, call: ast.Call, flag: ast.expr | None) -> Fix | None:
    name, owner = source.self_name(call), source.owner(call)
    if name is None or owner is None:
        return None
    text = f"{name}.training"
    if flag is not None:
        # A method and a literal are true in training as well; a flag of its own may have been false there.
        changes = self_attribute(flag) not in (None, "train", "eval")
        return Fix(_TITLE, (replace(source, flag, text),), safe=owner.has_mode, changes_training=changes)
    keyword = FUNCTIONALS[source.called(call) or ""].training_name
    edit = add_argument(source, call, f"{keyword}={text}")
    return Fix(_TITLE, (edit,), safe=owner.has_mode) if edit is not None else None


def check_trace(trace: Trace) -> Iterator[TraceViolation]:
    for site in active_in_eval(trace):
        if site.form is Form.FUNCTION or (site.form is Form.REGISTERED and ignores_its_flag(site, by_hand=False)):
            yield TraceViolation(site, severity=severity(site))


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
